-- Written by `python -m services.analytics.schemas` from services/analytics/migrations; edit those.
-- One row per client request, refused ones too. An edge may publish a request twice, long after the broker has forgotten
-- the first: the sorting key folds such repeats, whose bytes are the same.
CREATE TABLE IF NOT EXISTS sluicegate.requests_v1
(
    ts DateTime64(6, 'UTC') COMMENT 'when the request arrived' CODEC(Delta, ZSTD),
    request_id String,
    verdict LowCardinality(String),
    reason LowCardinality(String),
    budget_id String,
    status Int32,
    error_type LowCardinality(String),
    message String,
    outcome LowCardinality(String),
    attempts Array(String),
    org_uid LowCardinality(String),
    customer_uid LowCardinality(String),
    team_uid LowCardinality(String),
    key_uid LowCardinality(String),
    project_uid LowCardinality(String),
    provider_uid LowCardinality(String),
    tags Map(String, String),
    config_rev Int64,
    session_id String,
    agent_id String,
    parent_agent_id String,
    prompt_id String,
    request_class LowCardinality(String),
    client_version LowCardinality(String),
    operation LowCardinality(String),
    client_format LowCardinality(String),
    request_model LowCardinality(String),
    wire_model LowCardinality(String),
    stream Bool,
    reserve_us Int64,
    ttft_ms Int64,
    duration_ms Int64,
    bytes_in Int64,
    bytes_out Int64,
    body_digest String,
    repeat Bool,
    trace_id String,
    edge LowCardinality(String),
    epoch Int64,
    spool_seq Int64,
    admitted_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    closed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    log_id LowCardinality(String),
    stream_seq UInt64 CODEC(Delta, ZSTD),
    INDEX by_request request_id TYPE bloom_filter GRANULARITY 4,
    INDEX by_session session_id TYPE bloom_filter GRANULARITY 4
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (ts, request_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    non_replicated_deduplication_window = 1000;

CREATE OR REPLACE VIEW sluicegate.requests  AS
WITH
    (SELECT (groupArray(uid), groupArray(id), groupArray(owner)) FROM sluicegate.directory_v1 FINAL) AS names
SELECT
    request_id, ts, verdict, reason, budget_id, status, error_type, message, outcome,
    attempts, length(attempts) AS attempt_count,
    transform(org_uid, names.1, names.2) AS org,
    transform(customer_uid, names.1, names.2) AS customer,
    transform(team_uid, names.1, names.2) AS team,
    transform(key_uid, names.1, names.2) AS key,
    transform(key_uid, names.1, names.3, '') AS owner,
    transform(project_uid, names.1, names.2) AS project,
    transform(provider_uid, names.1, names.2) AS provider,
    org_uid, customer_uid, team_uid, key_uid, project_uid, provider_uid, tags, config_rev,
    session_id, agent_id, parent_agent_id, prompt_id, request_class, client_version, operation, client_format,
    request_model, wire_model, stream,
    if(reserve_us < 0, NULL, reserve_us) AS reserve_us,
    if(ttft_ms < 0, NULL, ttft_ms) AS ttft_ms,
    duration_ms, bytes_in, bytes_out, body_digest, repeat, trace_id, edge, epoch, spool_seq,
    if(admitted_at = toDateTime64(0, 6, 'UTC'), NULL, admitted_at) AS admitted_at,
    if(closed_at = toDateTime64(0, 6, 'UTC'), NULL, closed_at) AS closed_at,
    log_id, stream_seq
FROM sluicegate.requests_v1 FINAL;
