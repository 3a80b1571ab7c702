{{/* Names and labels; one place for each. */}}

{{/* Labels of every object. Argument: a list of (root context, component). */}}
{{- define "dsn.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{ include "dsn.podLabels" . }}
{{- end }}

{{/* Labels of pods: without versions, so that a new chart alone replaces no pod. */}}
{{- define "dsn.podLabels" -}}
app.kubernetes.io/part-of: dsn
{{ include "dsn.selectorLabels" . }}
{{- end }}

{{- define "dsn.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: dsn
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* registry/repository:tag */}}
{{- define "dsn.image" -}}
{{ .registry }}/{{ .repository }}:{{ .tag }}
{{- end }}

{{- define "dsn.brokerHost" -}}
{{- if .Values.broker.bundled.enabled -}}
dsn-rabbitmq.{{ .Release.Namespace }}.svc
{{- else -}}
{{ required "broker.external.host: name the broker, e.g. rabbitmq.messaging.svc, or set broker.bundled.enabled=true" .Values.broker.external.host }}
{{- end -}}
{{- end }}

{{- define "dsn.brokerPort" -}}
{{- if .Values.broker.bundled.enabled -}}5672{{- else -}}{{ .Values.broker.external.port }}{{- end -}}
{{- end }}

{{- define "dsn.managementUrl" -}}
{{- if .Values.broker.bundled.enabled -}}
http://dsn-rabbitmq.{{ .Release.Namespace }}.svc:15672
{{- else -}}
{{ required "broker.external.managementUrl: give the address of the management API, e.g. http://rabbitmq.messaging.svc:15672" .Values.broker.external.managementUrl }}
{{- end -}}
{{- end }}

{{/* Secret with username and password of the broker; the operator creates dsn-broker when it is missing. */}}
{{- define "dsn.brokerSecret" -}}
{{- if .Values.broker.bundled.enabled -}}
dsn-broker
{{- else -}}
{{ required "broker.external.existingSecret: name a Secret of this namespace with the keys username and password" .Values.broker.external.existingSecret }}
{{- end -}}
{{- end }}

{{/* Labels of what the Prometheus operator takes up. Argument: as of dsn.labels. */}}
{{- define "dsn.monitoringLabels" -}}
{{ include "dsn.labels" . }}
{{- with (index . 0).Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}
