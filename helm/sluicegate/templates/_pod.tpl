{{/* What every pod of ours has, services and jobs alike. */}}

{{/* The restricted Pod Security Standard. user and group 0: left to the cluster, as OpenShift wants it. */}}
{{- define "sluicegate.podSecurity" -}}
runAsNonRoot: true
{{- with int .Values.runAs.user }}
runAsUser: {{ . }}
{{- end }}
{{- with int .Values.runAs.group }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sluicegate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* {root, part}: the head of a pod's spec. */}}
{{- define "sluicegate.podHead" -}}
serviceAccountName: {{ include "sluicegate.fullname" .root }}-{{ .part }}
automountServiceAccountToken: false
enableServiceLinks: false  # else BUDGET_PORT=tcp://… appears and settings refuse it
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "sluicegate.podSecurity" .root | nindent 2 }}
{{- end }}

{{/* Where pods go; of a service's values or the defaults. */}}
{{- define "sluicegate.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* {root, name, command}: a container of our image, without what it needs beside. Arguments, for the image's own command is the
first process: it passes signals on, which Python does not while it starts. */}}
{{- define "sluicegate.container" -}}
name: {{ .name }}
image: {{ include "sluicegate.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ toJson .command }}
securityContext:
  {{- include "sluicegate.containerSecurity" .root | nindent 2 }}
{{- end }}

{{- define "sluicegate.commonMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.caBundle.existingConfigMap }}
- {name: ca, mountPath: /etc/sluicegate/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "sluicegate.commonVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- with .Values.caBundle.existingConfigMap }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* → projected sources: what says to NATS who we are, and whom we trust there; empty where variables do. */}}
{{- define "sluicegate.busFiles" -}}
{{- $nats := .Values.nats -}}
{{- with $nats.existingSecret }}
{{- if $nats.credentialsKey }}
- secret: {name: {{ . }}, items: [{key: {{ $nats.credentialsKey }}, path: user.creds}]}
{{- else if $nats.nkeySeedKey }}
- secret: {name: {{ . }}, items: [{key: {{ $nats.nkeySeedKey }}, path: user.nk}]}
{{- end }}
{{- end }}
{{- with $nats.tls.existingSecret }}
- secret:
    name: {{ . }}
    items:
      {{- with $nats.tls.caKey }}
      - {key: {{ . }}, path: ca.crt}
      {{- end }}
      {{- with $nats.tls.certKey }}
      - {key: {{ . }}, path: tls.crt}
      - {key: {{ $nats.tls.keyKey }}, path: tls.key}
      {{- end }}
{{- end }}
{{- end }}

{{- define "sluicegate.busMounts" -}}
{{- if include "sluicegate.busFiles" . }}
- {name: nats, mountPath: /etc/sluicegate/nats, readOnly: true}
{{- end }}
{{- end }}

{{- define "sluicegate.busVolumes" -}}
{{- with include "sluicegate.busFiles" . | trim }}
- name: nats
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{/* {probe, path} */}}
{{- define "sluicegate.probe" -}}
httpGet: {path: {{ .path }}, port: http}
periodSeconds: {{ .probe.periodSeconds }}
timeoutSeconds: {{ .probe.timeoutSeconds }}
failureThreshold: {{ .probe.failureThreshold }}
{{- end }}
