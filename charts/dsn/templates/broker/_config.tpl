{{/* RabbitMQ's files; also hashed into the pod's annotations, so that a change of them restarts the broker. */}}
{{- define "dsn.rabbitmqConfig" -}}
enabled_plugins: |
  [rabbitmq_management,rabbitmq_prometheus].
# conf.d/10-default-user.conf comes from the Secret dsn-broker. frame_max: every client keeps room for 32 frames in each
# direction, 8 MB with the usual 131072; bodies of messages go in several frames.
20-dsn.conf: |
  listeners.tcp.default = 5672
  management.tcp.port = 15672
  default_vhost = {{ .Values.broker.vhost }}
  default_user_tags.administrator = true
  default_permissions.configure = .*
  default_permissions.read = .*
  default_permissions.write = .*
  frame_max = 16384
  vm_memory_high_watermark.absolute = {{ .Values.broker.bundled.memoryHighWatermark }}
  disk_free_limit.absolute = 100MB
  log.console = true
  log.console.level = info
  log.file = false
{{- end }}
