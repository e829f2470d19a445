{{- define "bot-bottle.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if eq .Release.Name "bot-bottle" -}}
bottle-controller
{{- else -}}
{{- printf "%s-bottle-controller" (.Release.Name | trunc 32 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "bot-bottle.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "bot-bottle.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "bot-bottle.selector" -}}
app.kubernetes.io/name: bot-bottle
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "bot-bottle.labels" -}}
{{ include "bot-bottle.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "bot-bottle.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default "latest" .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* What the controller does with the objects of bottles, in the namespaces it looks after. */}}
{{- define "bot-bottle.rules" -}}
# The spec is never written; delete is for ttlSecondsAfterFinished.
- apiGroups: [bot-bottle.dev]
  resources: [bottles]
  verbs: [get, list, watch, delete]
- apiGroups: [bot-bottle.dev]
  resources: [bottles/status]
  verbs: [patch]
# Lets it past the admission policy.
- apiGroups: [bot-bottle.dev]
  resources: [bottles/admin]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# Changed rules of the guard go into a running pod.
- apiGroups: [""]
  resources: [pods/ephemeralcontainers]
  verbs: [patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch]
# Lists and watches ask for metadata alone; the values that it reads are those of the CAs it made itself.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
