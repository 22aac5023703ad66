"""The ledger's owner, and all that follows the logs."""

from helm.panels.panel import Dashboard, lines, quantiles, stat

LEDGER = Dashboard(
    uid="ledger",
    title="Sluicegate: ledger and pipeline",
    says="The ledger's owner, and how far everything that follows the logs has come.",
    rows=(
        (
            "Now",
            (
                stat(
                    "Shards without an owner",
                    "0, but for two seconds after a budget process died.",
                    "short",
                    "count(max by (namespace, shard) (sluicegate_budget_owned{@}) == 0) or vector(0)",
                ),
                stat(
                    "Broken promises",
                    "Found by the last check of the whole ledger.",
                    "short",
                    "max(sluicegate_budget_self_check_failures{@})",
                ),
                stat(
                    "Longest wait in a log",
                    "Of the oldest record that one of the followers has not dealt with.",
                    "s",
                    "max(sluicegate_log_behind_seconds{@})",
                ),
                stat(
                    "Age of the price book",
                    "Since the price book in force was published.",
                    "s",
                    "time() - max(sluicegate_pricing_book_published_timestamp_seconds{@})",
                ),
            ),
        ),
        (
            "Ledger",
            (
                lines(
                    "Records written",
                    "One carries all that was decided while the one before was written. Sent again: the broker did not answer.",
                    "ops",
                    ("sum(rate(sluicegate_budget_commits_total{@}[$__rate_interval]))", "written"),
                    ("sum(rate(sluicegate_budget_commit_retries_total{@}[$__rate_interval]))", "sent again"),
                ),
                quantiles(
                    "Time of a write",
                    "Until the broker has a record on disk; every verdict waits for it.",
                    "sluicegate_budget_commit_duration_seconds",
                ),
                lines(
                    "Owners and epochs",
                    "Which process has which shard, and how often shards have changed hands.",
                    "short",
                    ("sluicegate_budget_owned{@} == 1", "shard {{shard}} at {{instance}}"),
                    ("max by (shard) (sluicegate_budget_owner_epoch{@})", "epoch of shard {{shard}}"),
                ),
                lines(
                    "Snapshots and checks",
                    "Seconds a minute that snapshots kept the owner from deciding; checks of the whole ledger in six hours.",
                    "short",
                    (
                        "sum(rate(sluicegate_budget_snapshot_pause_seconds_sum{@}[$__rate_interval])) * 60",
                        "snapshot pause",
                    ),
                    ("sum by (result) (increase(sluicegate_budget_self_checks_total{@}[6h]))", "checks {{result}}"),
                ),
            ),
        ),
        (
            "Pipeline",
            (
                lines(
                    "Wait in the logs",
                    "How long the oldest record that a follower has not dealt with has waited.",
                    "s",
                    (
                        "max by (service_name, log, shard) (sluicegate_log_behind_seconds{@})",
                        "{{service_name}} in {{log}} {{shard}}",
                    ),
                ),
                lines(
                    "Records to go",
                    "Between a follower and the end of its log.",
                    "short",
                    (
                        "max by (service_name, log, shard) (sluicegate_log_behind_records{@})",
                        "{{service_name}} in {{log}} {{shard}}",
                    ),
                ),
                lines(
                    "Priced, inserted, chained",
                    "What comes out of pricing, analytics and audit.",
                    "ops",
                    ("sum(rate(sluicegate_pricing_records_total{@}[$__rate_interval]))", "records priced"),
                    ("sum(rate(sluicegate_pricing_undecodable_total{@}[$__rate_interval]))", "records left out"),
                    (
                        "sum by (table) (rate(sluicegate_analytics_rows_total{@}[$__rate_interval]))",
                        "rows of {{table}}",
                    ),
                    ("sum(rate(sluicegate_audit_pages_total{@}[$__rate_interval]))", "pages of the audit"),
                ),
                quantiles(
                    "Time of an insert",
                    "Until ClickHouse has a block on disk, by table.",
                    "sluicegate_analytics_insert_duration_seconds",
                    by="table",
                ),
            ),
        ),
        (
            "Processes",
            (
                lines(
                    "Ready",
                    "1: takes work; as /readyz says.",
                    "short",
                    ("min by (service_name, instance) (sluicegate_ready{@})", "{{service_name}} {{instance}}"),
                ),
                lines(
                    "Memory",
                    "Resident memory of each process.",
                    "bytes",
                    (
                        "process_resident_memory_bytes{@} and on (instance, worker) sluicegate_ready{@}",
                        "{{job}} {{instance}} {{worker}}",
                    ),
                ),
            ),
        ),
    ),
)
