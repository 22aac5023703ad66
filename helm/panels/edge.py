"""Traffic, providers, times and the spool."""

from helm.panels.panel import Dashboard, lines, quantiles, stat

EDGE = Dashboard(
    uid="edge",
    title="Sluicegate: edge",
    says="Traffic, the providers, how long things take, and the spool.",
    rows=(
        (
            "Now",
            (
                stat(
                    "Edges ready",
                    "Edges that take new streams.",
                    "short",
                    'sum(sluicegate_ready{@, service_name="edge"})',
                ),
                stat("Connections", "Open client connections.", "short", "sum(sluicegate_edge_connections{@})"),
                stat(
                    "Calls under way",
                    "Attempts between grant and end.",
                    "short",
                    "sum(sluicegate_edge_live_attempts{@})",
                ),
                stat(
                    "Records in spools",
                    "What the broker has not acknowledged; a few are always on their way.",
                    "short",
                    "sum(sluicegate_edge_spool_records{@})",
                ),
            ),
        ),
        (
            "Traffic",
            (
                lines(
                    "Requests by status",
                    "Answers to clients by HTTP status.",
                    "reqps",
                    ("sum by (status) (rate(sluicegate_edge_requests_total{@}[$__rate_interval]))", "{{status}}"),
                    stacked=True,
                ),
                lines(
                    "Attempts by provider and end",
                    "ok, client_gone and cut are no fault of the provider's; upstream_error, upstream_broken, unreachable are.",
                    "ops",
                    (
                        "sum by (provider, outcome) (rate(sluicegate_edge_attempts_total{@}[$__rate_interval]))",
                        "{{provider}} {{outcome}}",
                    ),
                ),
                lines(
                    "Connections and calls, by edge",
                    "How evenly clients spread.",
                    "short",
                    (
                        "sum by (instance, worker) (sluicegate_edge_connections{@})",
                        "{{instance}} {{worker}} connections",
                    ),
                    ("sum by (instance, worker) (sluicegate_edge_live_attempts{@})", "{{instance}} {{worker}} calls"),
                ),
                lines(
                    "Sent again, counted, lent",
                    "Clients that repeat a request; prompts that the provider counted before a refusal; attempts on a lease.",
                    "ops",
                    ("sum(rate(sluicegate_edge_repeats_total{@}[$__rate_interval]))", "repeated"),
                    (
                        "sum by (outcome) (rate(sluicegate_edge_input_counts_total{@}[$__rate_interval]))",
                        "counted, {{outcome}}",
                    ),
                    ("sum(rate(sluicegate_edge_lease_grants_total{@}[$__rate_interval]))", "on a lease"),
                ),
            ),
        ),
        (
            "Time",
            (
                quantiles(
                    "Time to first token",
                    "From the request to the first byte of the answer; nearly all of it is the provider's.",
                    "sluicegate_edge_time_to_first_token_seconds",
                ),
                quantiles(
                    "Waiting for the verdict",
                    "What we add before the provider hears of a request; who waits in line for money counts too.",
                    "sluicegate_edge_reserve_duration_seconds",
                ),
                quantiles(
                    "Whole requests",
                    "From the first byte of a request to the last of its answer.",
                    "sluicegate_edge_request_duration_seconds",
                ),
                lines(
                    "Memory and processor, by edge",
                    "An event loop is full at one processor.",
                    "short",
                    (
                        "rate(process_cpu_seconds_total{@}[$__rate_interval])"
                        " and on (instance, worker) sluicegate_edge_connections{@}",
                        "{{instance}} {{worker}} processors",
                    ),
                    (
                        "process_resident_memory_bytes{@} / 2^30 and on (instance, worker) sluicegate_edge_connections{@}",
                        "{{instance}} {{worker}} GiB",
                    ),
                ),
            ),
        ),
        (
            "Spool",
            (
                lines(
                    "Records not acknowledged, by edge",
                    "Grows while the broker is away.",
                    "short",
                    ("sum by (instance, worker) (sluicegate_edge_spool_records{@})", "{{instance}} {{worker}}"),
                ),
                lines(
                    "Free space for the spool",
                    "Share of the disk; below 64 MiB an edge refuses requests.",
                    "percentunit",
                    (
                        "sluicegate_edge_spool_disk_free_bytes{@} / sluicegate_edge_spool_disk_bytes{@}",
                        "{{instance}} {{worker}}",
                    ),
                ),
                lines(
                    "Records acknowledged",
                    "What the spools hand to the broker.",
                    "ops",
                    (
                        "sum by (instance, worker) (rate(sluicegate_edge_spool_acknowledged_total{@}[$__rate_interval]))",
                        "{{instance}} {{worker}}",
                    ),
                ),
            ),
        ),
    ),
)
