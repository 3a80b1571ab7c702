{{/* What every pod of the chart has in common: the restricted Pod Security level and where it runs. */}}

{{/* Argument: a list of (root context, values of the component, numeric user and group). */}}
{{- define "dsn.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- $user := index . 2 -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  # A catalogue or broker volume of some size would otherwise be walked through at every start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "dsn.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* One volume claim of a StatefulSet. Argument: a list of (name, storage values). */}}
{{- define "dsn.claim" -}}
{{- $storage := index . 1 -}}
# No labels here: a claim template cannot be changed later. All that the API server would fill in is said: the list is
# compared as a whole, and GitOps tools would see a difference.
- apiVersion: v1
  kind: PersistentVolumeClaim
  metadata:
    name: {{ index . 0 }}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $storage.storageClassName }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests:
        storage: {{ $storage.size }}
    volumeMode: Filesystem
  status: {phase: Pending}
{{- end }}
