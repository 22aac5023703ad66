{{/* Environment variables. A service refuses to start with one that it does not know, so these are exactly its settings. */}}

{{/* {name, secret, key} */}}
{{- define "sluicegate.secretVariable" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}

{{/* {root, prefix}: how to reach the broker. */}}
{{- define "sluicegate.busVariables" -}}
{{- $nats := .root.Values.nats -}}
- {name: {{ .prefix }}_BUS_URL, value: {{ include "sluicegate.natsUrl" .root | quote }}}
{{- with $nats.prefix }}
- {name: {{ $.prefix }}_BUS_PREFIX, value: {{ . | quote }}}
{{- end }}
{{- with include "sluicegate.natsMonitorUrl" .root }}
- {name: {{ $.prefix }}_BUS_MONITOR_URL, value: {{ . | quote }}}
{{- end }}
{{- with $nats.existingSecret }}
{{- if $nats.credentialsKey }}
- {name: {{ $.prefix }}_BUS_CREDENTIALS_FILE, value: /etc/sluicegate/nats/user.creds}
{{- else if $nats.nkeySeedKey }}
- {name: {{ $.prefix }}_BUS_NKEY_SEED_FILE, value: /etc/sluicegate/nats/user.nk}
{{- else }}
{{ include "sluicegate.secretVariable" (dict "name" (printf "%s_BUS_USER" $.prefix) "secret" . "key" $nats.userKey) }}
{{ include "sluicegate.secretVariable" (dict "name" (printf "%s_BUS_PASSWORD" $.prefix) "secret" . "key" $nats.passwordKey) }}
{{- end }}
{{- end }}
{{- if and $nats.tls.existingSecret $nats.tls.caKey }}
- {name: {{ $.prefix }}_BUS_TLS_CA_FILE, value: /etc/sluicegate/nats/ca.crt}
{{- end }}
{{- if and $nats.tls.existingSecret $nats.tls.certKey }}
- {name: {{ $.prefix }}_BUS_TLS_CERT_FILE, value: /etc/sluicegate/nats/tls.crt}
- {name: {{ $.prefix }}_BUS_TLS_KEY_FILE, value: /etc/sluicegate/nats/tls.key}
{{- end }}
{{- end }}

{{/* {root, prefix}: who to be at ClickHouse. */}}
{{- define "sluicegate.clickhouseUser" -}}
{{- $clickhouse := .root.Values.clickhouse -}}
{{- with $clickhouse.existingSecret -}}
{{ include "sluicegate.secretVariable" (dict "name" (printf "%s_CLICKHOUSE_USER" $.prefix) "secret" . "key" $clickhouse.userKey) }}
{{ include "sluicegate.secretVariable" (dict "name" (printf "%s_CLICKHOUSE_PASSWORD" $.prefix) "secret" . "key" $clickhouse.passwordKey) }}
{{- end }}
{{- end }}

{{- define "sluicegate.environment.edge" -}}
- {name: EDGE_LISTEN_HOST, value: {{ .root.Values.bindAddress | quote }}}
- {name: EDGE_LISTEN_PORT, value: {{ .facts.ports.edge | quote }}}
- {name: EDGE_DATA_DIR, value: {{ .facts.volume }}/spool}
{{- if .root.Values.services.simulator.enabled }}
- {name: SIMULATOR_KEY, value: simulator}  # for `credential: env:SIMULATOR_KEY`; it takes any
{{- end }}
{{- end }}

{{- define "sluicegate.environment.budget" -}}
{{- $shards := list -}}
{{- range until (int .root.Values.shards) }}{{ $shards = append $shards (toString .) }}{{ end -}}
- {name: BUDGET_SHARDS, value: {{ join "," $shards | quote }}}
- name: BUDGET_REPLICA  # with a name it looks who lives before it takes a shard: during an update there are two
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: BUDGET_CLICKHOUSE_URL, value: "{{ include "sluicegate.clickhouseUrl" .root }}/{{ .root.Values.clickhouse.database }}"}
{{- with include "sluicegate.clickhouseUser" (dict "root" .root "prefix" "BUDGET") }}
{{ . }}
{{- end }}
{{- end }}

{{- define "sluicegate.environment.analytics" -}}
{{- $clickhouse := .root.Values.clickhouse -}}
- {name: ANALYTICS_CLICKHOUSE_URL, value: {{ include "sluicegate.clickhouseUrl" .root | quote }}}
- {name: ANALYTICS_DATABASE, value: {{ $clickhouse.database | quote }}}
- {name: ANALYTICS_ENGINE, value: {{ $clickhouse.engine | quote }}}
{{- with $clickhouse.cluster }}
- {name: ANALYTICS_CLUSTER, value: {{ . | quote }}}
{{- end }}
{{- with include "sluicegate.clickhouseUser" (dict "root" .root "prefix" "ANALYTICS") }}
{{ . }}
{{- end }}
{{- end }}

{{- define "sluicegate.environment.console" -}}
{{- $token := .root.Values.adminToken -}}
{{ include "sluicegate.secretVariable" (dict "name" "CONSOLE_ADMIN_TOKEN" "secret" $token.existingSecret "key" $token.key) }}
- {name: CONSOLE_EDGE_URL, value: {{ .root.Values.edgeUrl | default (printf "%s/anthropic" (include "sluicegate.edgeUrl" .root)) | quote }}}
{{- if not (hasKey .values.settings "secure_cookies") }}
- {name: CONSOLE_SECURE_COOKIES, value: "{{ or .values.ingress.enabled .values.httpRoute.enabled }}"}
{{- end }}
- {name: CONSOLE_CLICKHOUSE_URL, value: {{ include "sluicegate.clickhouseUrl" .root | quote }}}
- {name: CONSOLE_CLICKHOUSE_DATABASE, value: {{ .root.Values.clickhouse.database | quote }}}
{{- with include "sluicegate.clickhouseUser" (dict "root" .root "prefix" "CONSOLE") }}
{{ . }}
{{- end }}
{{- end }}

{{- define "sluicegate.environment.telemetry" -}}
{{- with .values.otlp -}}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ .protocol }}}
- {name: OTEL_EXPORTER_OTLP_COMPRESSION, value: {{ .compression }}}
- {name: OTEL_TRACES_SAMPLER, value: {{ .sampler }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .samplerRatio | quote }}}
{{- if not .metrics }}
- {name: OTEL_METRICS_EXPORTER, value: none}
{{- end }}
{{- with .existingSecret }}
{{ include "sluicegate.secretVariable" (dict "name" "OTEL_EXPORTER_OTLP_HEADERS" "secret" . "key" $.values.otlp.headersKey) }}
{{- end }}
{{- with $.root.Values.caBundle.existingConfigMap }}
- {name: OTEL_EXPORTER_OTLP_CERTIFICATE, value: /etc/sluicegate/ca/{{ $.root.Values.caBundle.key }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "sluicegate.environment.simulator" -}}
- {name: SIMULATOR_DATA_DIR, value: /tmp/simulator}
{{- end }}
{{- define "sluicegate.environment.pricing" }}{{ end }}
{{- define "sluicegate.environment.audit" }}{{ end }}

{{/* {root, name, facts, values} */}}
{{- define "sluicegate.environment" -}}
{{- $prefix := upper .name -}}
- {name: HOME, value: /tmp}
- {name: {{ $prefix }}_HTTP_HOST, value: {{ .root.Values.bindAddress | quote }}}
- {name: {{ $prefix }}_HTTP_PORT, value: {{ .facts.ports.http | quote }}}
{{- if .facts.bus }}
{{ include "sluicegate.busVariables" (dict "root" .root "prefix" $prefix) }}
{{- end }}
{{- with include (printf "sluicegate.environment.%s" .name) . }}
{{ . }}
{{- end }}
{{- range $setting, $value := .values.settings }}
- {name: {{ $prefix }}_{{ upper $setting }}, value: {{ include "sluicegate.text" $value | quote }}}
{{- end }}
{{- with include "sluicegate.trustVariables" .root }}
{{ . }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sluicegate.trustVariables" -}}
{{- with .Values.caBundle.existingConfigMap -}}
- {name: SSL_CERT_FILE, value: /etc/sluicegate/ca/{{ $.Values.caBundle.key }}}
{{- end }}
{{- end }}
