{{/* Names and labels. "part" is a service or a job: edge, budget, provision, nats, … */}}

{{- define "sluicegate.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* At most 40 characters: a StatefulSet's pods carry its name with a hash in a label of 63. */}}
{{- define "sluicegate.fullname" -}}
{{- $name := include "sluicegate.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* {root, part} → what a selector may hold: never a version, for selectors cannot change. */}}
{{- define "sluicegate.selector" -}}
app.kubernetes.io/name: {{ include "sluicegate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* {root, part} */}}
{{- define "sluicegate.labels" -}}
{{ include "sluicegate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sluicegate
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* {root, part} → the metadata of an object that bears the part's name. */}}
{{- define "sluicegate.metadata" -}}
name: {{ include "sluicegate.fullname" .root }}-{{ .part }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "sluicegate.labels" . | nindent 2 }}
{{- end }}

{{/* A value as the text of an environment variable. Helm reads whole numbers as floats; JSON writes them without exponent. */}}
{{- define "sluicegate.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end }}

{{- define "sluicegate.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* {text, indent}: the text of a file as a YAML block, its empty lines empty. */}}
{{- define "sluicegate.block" -}}
{{- regexReplaceAll "(?m)^ +$" (.text | trimSuffix "\n" | nindent .indent) "" -}}
{{- end }}
