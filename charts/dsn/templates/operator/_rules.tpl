{{/* What the operator may do in the namespaces whose resources it serves; tests/rbac.rs holds it to what the code asks. */}}
{{- define "dsn.operatorRules" -}}
- apiGroups: [dsn.network]
  resources: [cameras, pipelines, storagenodes]
  verbs: [get, list, watch]
- apiGroups: [dsn.network]
  resources: [cameras/status, pipelines/status, storagenodes/status]
  verbs: [patch]
# Only for clusters that check who may block a deletion (OwnerReferencesPermissionEnforcement); there are no finalizers.
- apiGroups: [dsn.network]
  resources: [cameras/finalizers, pipelines/finalizers, storagenodes/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, services, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Mounted by pods, read by name, made once; never listed, changed or deleted.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
