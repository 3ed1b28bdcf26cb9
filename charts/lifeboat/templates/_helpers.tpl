{{/* What everything is called: lifeboat-operator, or RELEASE-lifeboat-operator. */}}
{{- define "lifeboat.name" -}}
{{- $release := .Release.Name -}}
{{- if not (contains "lifeboat" $release) }}{{ $release = printf "%s-lifeboat" $release }}{{ end -}}
{{- printf "%s-operator" (trunc 47 $release | trimSuffix "-") -}}
{{- end }}

{{- define "lifeboat.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "lifeboat.selector" -}}
app.kubernetes.io/name: lifeboat
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "lifeboat.labels" -}}
{{ include "lifeboat.selector" . }}
app.kubernetes.io/part-of: lifeboat
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The ServiceAccount, as bindings name it. */}}
{{- define "lifeboat.subjects" -}}
subjects:
- kind: ServiceAccount
  name: {{ include "lifeboat.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A roleRef of a kind and a name: list kind name. */}}
{{- define "lifeboat.roleRef" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 0 }}
  name: {{ index . 1 }}
{{- end }}
