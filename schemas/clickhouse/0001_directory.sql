-- Written by `python -m services.analytics.schemas` from services/analytics/migrations; edit those.
-- Who and what the uids in the other tables stand for: the last state of every entity of CONFIG.
-- Deleted entities stay, so that old rows keep their names. People are erased by writing here, nowhere else.
CREATE TABLE IF NOT EXISTS sluicegate.directory_v1
(
    uid String,
    kind LowCardinality(String),
    id String,
    owner String,
    org_uid String,
    customer_uid String,
    team_uid String,
    key_uid String,
    provider_uid String,
    deleted Bool,
    config_rev UInt64,
    changed_at DateTime64(6, 'UTC'),
    log_id LowCardinality(String),
    stream_seq UInt64
)
ENGINE = ReplacingMergeTree(config_rev)
ORDER BY uid
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    non_replicated_deduplication_window = 1000;

CREATE OR REPLACE VIEW sluicegate.directory  AS
SELECT uid, kind, id, owner, org_uid, customer_uid, team_uid, key_uid, provider_uid, deleted, config_rev, changed_at
FROM sluicegate.directory_v1 FINAL;
