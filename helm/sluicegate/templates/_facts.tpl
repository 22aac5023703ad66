{{/*
What each service is. Nothing here is a matter of taste, so it is no value: values say how much, how many and where.

ports        by name; `http` answers /healthz, /readyz and /metrics
traffic      the port that clients use, where there are any
volume       where it keeps what must outlive a pod; such a service is a StatefulSet
singleton    one log has one writer: a second process would end the first, so the old one ends before the new one starts
drains       clients are connected to it: they need time to notice that it leaves
reaches      what it opens connections to; the network policy allows this and nothing else
*/}}
{{- define "sluicegate.facts" -}}
edge:
  ports: {http: 9090, edge: 8080}
  traffic: edge
  volume: /var/lib/sluicegate
  drains: true
  bus: true
  reaches: [nats, upstream, simulator]
budget:
  ports: {http: 9090}
  bus: true
  reaches: [nats, monitor, clickhouse]
pricing:
  ports: {http: 9090}
  singleton: true
  bus: true
  reaches: [nats]
audit:
  ports: {http: 9090}
  singleton: true
  bus: true
  reaches: [nats]
analytics:
  ports: {http: 9090}
  singleton: true
  bus: true
  reaches: [nats, clickhouse]
console:
  ports: {http: 8081}
  traffic: http
  drains: true
  bus: true
  reaches: [nats, clickhouse]
telemetry:
  ports: {http: 9090}
  singleton: true
  bus: true
  reaches: [nats, otlp]
simulator:
  ports: {http: 8080}
  traffic: http
  drains: true
  bus: false
  reaches: []
{{- end }}

{{/* The same for what runs to an end. */}}
{{- define "sluicegate.jobs" -}}
provision:
  reaches: [nats, clickhouse]
organisation:
  reaches: [console]
test:
  reaches: [edge, console]
{{- end }}

{{/*
→ JSON of the services that run, by name: their facts, and their values over the defaults.
Maps are merged, lists and plain values replaced.
*/}}
{{- define "sluicegate.services" -}}
{{- $facts := include "sluicegate.facts" . | fromYaml -}}
{{- $found := dict -}}
{{- range $name, $given := .Values.services -}}
{{- if dig "enabled" true $given -}}
{{- $values := mergeOverwrite (deepCopy $.Values.defaults) (deepCopy $given) -}}
{{- $_ := set $found $name (dict "name" $name "facts" (get $facts $name) "values" $values) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end }}

{{- define "sluicegate.natsUrl" -}}
{{- if .Values.dev.bundled.enabled }}nats://{{ include "sluicegate.fullname" . }}-nats:4222{{ else }}{{ .Values.nats.url }}{{ end -}}
{{- end }}

{{- define "sluicegate.natsMonitorUrl" -}}
{{- if .Values.dev.bundled.enabled }}http://{{ include "sluicegate.fullname" . }}-nats:8222{{ else }}{{ .Values.nats.monitorUrl }}{{ end -}}
{{- end }}

{{- define "sluicegate.clickhouseUrl" -}}
{{- if .Values.dev.bundled.enabled }}http://{{ include "sluicegate.fullname" . }}-clickhouse:8123{{ else }}{{ trimSuffix "/" .Values.clickhouse.url }}{{ end -}}
{{- end }}

{{- define "sluicegate.consoleUrl" -}}
http://{{ include "sluicegate.fullname" . }}-console:8081
{{- end }}

{{- define "sluicegate.edgeUrl" -}}
http://{{ include "sluicegate.fullname" . }}-edge:8080
{{- end }}

{{/* {url, default} → the port that a URL names. */}}
{{- define "sluicegate.port" -}}
{{- $host := get (urlParse .url) "host" -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default .default -}}
{{- end }}

{{/* → ports of your NATS, one or more with blanks between them. */}}
{{- define "sluicegate.natsPorts" -}}
{{- $ports := list -}}
{{- range splitList "," .Values.nats.url -}}
{{- $ports = append $ports (include "sluicegate.port" (dict "url" (trim .) "default" "4222")) -}}
{{- end -}}
{{- $ports | uniq | join " " -}}
{{- end }}

{{/* Where the URL names none, that of the exporters. */}}
{{- define "sluicegate.otlpPort" -}}
{{- $otlp := .Values.services.telemetry.otlp -}}
{{- $plain := and (hasPrefix "http:" $otlp.endpoint) (ne $otlp.protocol "grpc") -}}
{{- include "sluicegate.port" (dict "url" $otlp.endpoint "default" (ternary "80" "443" $plain)) -}}
{{- end }}

{{- define "sluicegate.clickhousePort" -}}
{{- $url := include "sluicegate.clickhouseUrl" . -}}
{{- include "sluicegate.port" (dict "url" $url "default" (ternary "8443" "8123" (hasPrefix "https:" $url))) -}}
{{- end }}
