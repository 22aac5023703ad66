"""Names of metrics and attributes, each with its unit and meaning, as OpenTelemetry's GenAI conventions have them."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from shared.timings import Timings

# Attribute names on spans, by OpenTelemetry's semantic conventions as its package for Python publishes them.
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"  # with what was read from and written to the cache
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"  # with thinking
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"  # the session
GEN_AI_AGENT_ID = "gen_ai.agent.id"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105  # input, output; no password
GEN_AI_CLIENT_TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105  # a metric, no password
GEN_AI_CLIENT_OPERATION_DURATION = "gen_ai.client.operation.duration"  # seconds
GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"  # seconds
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# Attribute names of ours on spans; what is called uid is the immutable one, names live in the directory.
REQUEST_ID = "sluicegate.request.id"
REQUEST_BYTES = "sluicegate.request.bytes"
REQUEST_CLASS = "sluicegate.request.class"  # main, subagent, auxiliary
REQUEST_REPEAT = "sluicegate.request.repeat"  # the client's own retry
RESPONSE_BYTES = "sluicegate.response.bytes"
ATTEMPT_ID = "sluicegate.attempt.id"  # rid
ATTEMPT_NUMBER = "sluicegate.attempt.number"
ATTEMPT_COUNT = "sluicegate.attempt.count"
ORG_UID = "sluicegate.org.uid"
CUSTOMER_UID = "sluicegate.customer.uid"
TEAM_UID = "sluicegate.team.uid"
KEY_UID = "sluicegate.key.uid"
PROJECT_UID = "sluicegate.project.uid"
PROVIDER = "sluicegate.provider"  # its name in the organisation
REGION = "sluicegate.region"
CREDENTIAL = "sluicegate.credential"  # its id, never its value
CLIENT_VERSION = "sluicegate.client.version"
PARENT_AGENT_ID = "sluicegate.parent_agent.id"
EDGE = "sluicegate.edge"
VERDICT = "sluicegate.verdict"  # admitted, refused, rejected, free, unavailable
REFUSAL_REASON = "sluicegate.refusal.reason"
REFUSAL_BUDGET = "sluicegate.refusal.budget"  # id of the budget that said no
RESERVE_US = "sluicegate.reserve_us"  # microseconds until budget's verdict
OUTCOME = "sluicegate.outcome"  # ok, client_gone, upstream_error, upstream_broken, cut, not_sent, edge_died
COST_NANO_USD = "sluicegate.cost_nano_usd"
LIST_NANO_USD = "sluicegate.list_nano_usd"
CHARGE_NANO_USD = "sluicegate.charge_nano_usd"
PRICE_VERSION = "sluicegate.price_version"
BILLING_CLASS = "sluicegate.billing_class"
ESTIMATED = "sluicegate.estimated"  # the quantities rest on what was seen passing
UNPRICED = "sluicegate.unpriced"
UNGOVERNED = "sluicegate.ungoverned"
UPSTREAM_REQUEST_ID = "sluicegate.upstream.request_id"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)

# `service_name` and not `service`: that label is set by a ServiceMonitor, and ours would be renamed.
service_ready = Gauge(
    "sluicegate_ready", "Whether this process can take work now, as its /readyz says.", ["service_name"]
)
log_behind_seconds = Gauge(
    "sluicegate_log_behind_seconds",
    "For how long the oldest record that a reader has not dealt with has waited for it.",
    ["service_name", "log", "shard"],
)
log_behind_records = Gauge(
    "sluicegate_log_behind_records",
    "Sequences between a reader and the end of its log.",
    ["service_name", "log", "shard"],
)

edge_requests = Counter(
    "sluicegate_edge_requests_total", "Client requests by how they ended.", ["operation", "verdict", "status"]
)
edge_request_seconds = Timings(
    "sluicegate_edge_request_duration_seconds",
    "From the first byte of a request to the last of its answer.",
    SECONDS,
)
edge_ttft_seconds = Timings(
    "sluicegate_edge_time_to_first_token_seconds", "From the request to the first byte of the answer.", SECONDS
)
edge_reserve_seconds = Timings(
    "sluicegate_edge_reserve_duration_seconds", "From asking budget to its verdict.", SECONDS
)
edge_connections = Gauge("sluicegate_edge_connections", "Open client connections.")
edge_live_attempts = Gauge("sluicegate_edge_live_attempts", "Attempts between the grant and their end.")
edge_spool_records = Gauge(
    "sluicegate_edge_spool_records", "Records in the spool that the broker has not acknowledged."
)
edge_spool_acknowledged = Counter(
    "sluicegate_edge_spool_acknowledged_total", "Records of the spool that the broker has acknowledged."
)
edge_spool_disk_free_bytes = Gauge("sluicegate_edge_spool_disk_free_bytes", "Free space where the spool is kept.")
edge_spool_disk_bytes = Gauge("sluicegate_edge_spool_disk_bytes", "Size of the filesystem where the spool is kept.")
edge_attempts = Counter(
    "sluicegate_edge_attempts_total", "Attempts by the provider's name and how they ended.", ["provider", "outcome"]
)
edge_lease_grants = Counter(
    "sluicegate_edge_lease_grants_total", "Attempts admitted on a lease, without asking budget."
)
edge_leased_nano_usd = Gauge("sluicegate_edge_leased_nano_usd", "Money of open leases that is not drawn, nano-USD.")
edge_ungoverned = Counter("sluicegate_edge_ungoverned_total", "Attempts admitted without a verdict of the owner.")
edge_extensions = Counter(
    "sluicegate_edge_extensions_total", "Streams that asked for more than they held, by answer.", ["answer"]
)
edge_input_counts = Counter(
    "sluicegate_edge_input_counts_total",
    "Prompts that a provider counted before a refusal, by what came of it.",
    ["outcome"],
)
edge_repeats = Counter("sluicegate_edge_repeats_total", "Requests that a client sent again: one storm is one request.")
edge_certificate_reloads = Counter(
    "sluicegate_edge_certificate_reloads_total", "Changes of the certificate's files, by what came of them.", ["result"]
)
edge_certificate_stale = Gauge(
    "sluicegate_edge_certificate_stale", "1 while the certificate's files cannot be used and the one before is shown."
)

budget_verdicts = Counter("sluicegate_budget_verdicts_total", "Answers to RESERVE.", ["verdict", "reason"])
budget_commits = Counter("sluicegate_budget_commits_total", "Records appended to LEDGER.")
budget_commit_retries = Counter(
    "sluicegate_budget_commit_retries_total", "Times that a record had to be sent to LEDGER again."
)
budget_commit_seconds = Histogram(
    "sluicegate_budget_commit_duration_seconds", "Appending one record to LEDGER.", buckets=SECONDS
)
budget_snapshot_pause_seconds = Histogram(
    "sluicegate_budget_snapshot_pause_seconds", "How long a snapshot kept the owner from deciding.", buckets=SECONDS
)
budget_owned = Gauge("sluicegate_budget_owned", "Whether this process owns the shard.", ["shard"])
budget_owner_epoch = Gauge(
    "sluicegate_budget_owner_epoch",
    "Of the last time that this process took the shard; one more for each owner.",
    ["shard"],
)
budget_broker_unsynced = Gauge(
    "sluicegate_budget_broker_unsynced", "1 where the broker was found to acknowledge before it writes to disk."
)
budget_entries = Counter("sluicegate_budget_entries_total", "Entries booked.", ["kind"])
budget_booked_nano_usd = Counter(
    "sluicegate_budget_booked_nano_usd_total", "Cost of the entries booked, nano-USD; corrections below 0 are left out."
)
budget_returned_nano_usd = Counter(
    "sluicegate_budget_returned_nano_usd_total", "What corrections have taken back of booked cost, nano-USD."
)
budget_holds = Gauge("sluicegate_budget_holds", "Holds alive.")
budget_self_checks = Counter("sluicegate_budget_self_checks_total", "Checks of the whole ledger.", ["result"])
budget_self_check_failures = Gauge(
    "sluicegate_budget_self_check_failures", "Promises that the last check of the whole ledger found broken."
)
budget_waiting = Gauge("sluicegate_budget_waiting", "Attempts in line for money that others hold.")
budget_leases = Gauge("sluicegate_budget_leases", "Leases that edges have.")
budget_leased_nano_usd = Gauge(
    "sluicegate_budget_leased_nano_usd", "Money that edges have on leases and have not told of, nano-USD."
)
budget_overruns = Counter("sluicegate_budget_overruns_total", "Entries whose cost passed their hold.")

pricing_records = Counter("sluicegate_pricing_records_total", "Usage records priced.")
pricing_unpriced = Counter("sluicegate_pricing_unpriced_total", "Usage records with a line that no rate card covers.")
pricing_undecodable = Counter(
    "sluicegate_pricing_undecodable_total", "Messages of USAGE that are no usage record and were left out."
)
pricing_book_published = Gauge(
    "sluicegate_pricing_book_published_timestamp_seconds", "When the price book in force was published, Unix time."
)

analytics_rows = Counter("sluicegate_analytics_rows_total", "Rows inserted.", ["table"])
analytics_insert_seconds = Histogram(
    "sluicegate_analytics_insert_duration_seconds", "One insert into ClickHouse, durably.", ["table"], buckets=SECONDS
)
analytics_queries = Counter(
    "sluicegate_analytics_queries_total", "Queries on the ClickHouse port of the embedded engine.", ["status"]
)
audit_pages = Counter("sluicegate_audit_pages_total", "Pages appended to the audit chain.")
telemetry_spans = Counter(
    "sluicegate_telemetry_spans_total", "Spans handed to the OTLP receiver, by what came of them.", ["result"]
)
telemetry_exports = Counter("sluicegate_telemetry_exports_total", "Tries to hand spans over.", ["result"])
telemetry_metric_exports = Counter(
    "sluicegate_telemetry_metric_exports_total", "Tries to hand metrics over.", ["result"]
)
simulator_requests = Counter("sluicegate_simulator_requests_total", "Requests answered by the simulator.", ["status"])

_OWNERS = ("edge", "budget", "pricing", "analytics", "audit", "telemetry", "simulator")  # as the names above begin


def keep(service: str, registry: CollectorRegistry = REGISTRY) -> None:
    """A process tells of what it does: a gauge of another service would stand in its answer as a 0 that means nothing."""
    for name, metric in list(globals().items()):
        if isinstance(metric, Counter | Gauge | Histogram) and name.partition("_")[0] in {*_OWNERS} - {service}:
            registry.unregister(metric)
