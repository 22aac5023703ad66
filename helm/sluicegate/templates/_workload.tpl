{{/* The pod template of a service. {root, name, facts, values} */}}

{{/* Longest drain, before it the wait of preStop, after it what is left: the spool's flush, the bus, the last words. */}}
{{- define "sluicegate.graceSeconds" -}}
{{- $drain := int (ceil (float64 (dig "drain_seconds" 0 .values.settings))) -}}
{{- $wait := ternary (int .values.preStopSeconds) 0 (default false .facts.drains) -}}
{{- add $drain $wait (int .values.stopMarginSeconds) -}}
{{- end }}

{{/* Without a shell or a `sleep` in the image: the kubelet's own from 1.30 on, before it Python's. */}}
{{- define "sluicegate.preStop" -}}
{{- if semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version -}}
sleep: {seconds: {{ .values.preStopSeconds }}}
{{- else -}}
exec: {command: [python, -c, "import time; time.sleep({{ .values.preStopSeconds }})"]}
{{- end -}}
{{- end }}

{{- define "sluicegate.mounts" -}}
{{ include "sluicegate.commonMounts" .root }}
{{- if .facts.bus }}
{{- include "sluicegate.busMounts" .root }}
{{- end }}
{{- with .facts.volume }}
- {name: data, mountPath: {{ . }}}
{{- end }}
{{- if eq .name "edge" }}
{{- range .root.Values.providerCredentials }}
- {name: credential-{{ .name }}, mountPath: /etc/sluicegate/credentials/{{ .name }}, readOnly: true}
{{- end }}
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sluicegate.volumes" -}}
{{ include "sluicegate.commonVolumes" .root }}
{{- if .facts.bus }}
{{- include "sluicegate.busVolumes" .root }}
{{- end }}
{{- if and .facts.volume (not .values.persistence.enabled) }}
- name: data
  emptyDir: {}
{{- end }}
{{- if eq .name "edge" }}
{{- range .root.Values.providerCredentials }}
- name: credential-{{ .name }}
  secret: {secretName: {{ .existingSecret }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Everything that meets on the bus waits here for its streams, rather than failing until they are there. */}}
{{- define "sluicegate.waitForStreams" -}}
- {{ include "sluicegate.container" (dict "root" .root "name" "streams" "command" (list "sluicegate" "provision" "--check" "--of" .name)) | indent 2 | trim }}
  env:
    - {name: HOME, value: /tmp}
    {{- include "sluicegate.busVariables" (dict "root" .root "prefix" (upper .name)) | nindent 4 }}
    {{- with include "sluicegate.trustVariables" .root }}
    {{- . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml .root.Values.jobs.resources | nindent 4 }}
  volumeMounts:
    {{- include "sluicegate.commonMounts" .root | nindent 4 }}
    {{- with include "sluicegate.busMounts" .root | trim }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "sluicegate.spread" -}}
{{- if .values.topologySpreadConstraints }}
{{- toYaml .values.topologySpreadConstraints }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "sluicegate.selector" (dict "root" $.root "part" $.name) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sluicegate.podTemplate" -}}
{{- $labels := include "sluicegate.selector" (dict "root" .root "part" .name) | fromYaml -}}
metadata:
  labels:
    {{- toYaml (merge $labels (deepCopy .values.podLabels)) | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .name }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "sluicegate.podHead" (dict "root" .root "part" .name) | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "sluicegate.graceSeconds" . }}
  {{- with include "sluicegate.placement" .values | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  topologySpreadConstraints:
    {{- include "sluicegate.spread" . | trim | nindent 4 }}
  {{- if or .facts.bus .values.extraInitContainers }}
  initContainers:
    {{- if .facts.bus }}
    {{- include "sluicegate.waitForStreams" . | nindent 4 }}
    {{- end }}
    {{- with .values.extraInitContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - {{ include "sluicegate.container" (dict "root" .root "name" .name "command" (list "python" "-m" (printf "services.%s" .name))) | indent 6 | trim }}
      env:
        {{- include "sluicegate.environment" . | nindent 8 }}
      {{- with .values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $port, $number := .facts.ports }}
        - {name: {{ $port }}, containerPort: {{ $number }}}
        {{- end }}
      startupProbe:  # the port opens when the start is done, which replays what was written since the last snapshot
        {{- include "sluicegate.probe" (dict "probe" .values.probes.startup "path" "/healthz") | nindent 8 }}
      readinessProbe:
        {{- include "sluicegate.probe" (dict "probe" .values.probes.readiness "path" "/readyz") | nindent 8 }}
      livenessProbe:  # answers as long as the loop turns, whoever else is away
        {{- include "sluicegate.probe" (dict "probe" .values.probes.liveness "path" "/healthz") | nindent 8 }}
      {{- if and .facts.drains (gt (int .values.preStopSeconds) 0) }}
      lifecycle:
        preStop:  # endpoints forget the pod first, then it is told to stop: nobody is sent to a door that closes
          {{- include "sluicegate.preStop" . | nindent 10 }}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        {{- include "sluicegate.mounts" . | nindent 8 }}
    {{- with .values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "sluicegate.volumes" . | nindent 4 }}
{{- end }}
