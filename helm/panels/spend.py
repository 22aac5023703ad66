"""What is spent, what is held, and who is refused."""

from helm.panels.panel import USD, Dashboard, lines, stat

SPEND = Dashboard(
    uid="spend",
    title="Sluicegate: spend and refusals",
    says="What is spent, what is held, and who is refused for which reason.",
    rows=(
        (
            "Now",
            (
                stat(
                    "Spent in the range",
                    "Cost of all entries booked in the chosen range, less what corrections took back.",
                    "currencyUSD",
                    "(sum(increase(sluicegate_budget_booked_nano_usd_total{@}[$__range]))"
                    f" - sum(increase(sluicegate_budget_returned_nano_usd_total{{@}}[$__range]))) {USD}",
                ),
                stat(
                    "Refused in the range",
                    "Requests that a budget or a limit refused at the edge, in the chosen range.",
                    "short",
                    'sum(increase(sluicegate_edge_requests_total{@, verdict="refused"}[$__range])) or vector(0)',
                ),
                stat("Holds alive", "Attempts that money is held for now.", "short", "sum(sluicegate_budget_holds{@})"),
                stat(
                    "Waiting in line",
                    "Attempts that wait for money which others hold.",
                    "short",
                    "sum(sluicegate_budget_waiting{@})",
                ),
            ),
        ),
        (
            "Spend",
            (
                lines(
                    "Spend an hour",
                    "The rate at which cost is booked, as US dollars an hour.",
                    "currencyUSD",
                    (
                        f"sum(rate(sluicegate_budget_booked_nano_usd_total{{@}}[$__rate_interval])) * 3600 {USD}",
                        "booked",
                    ),
                    (
                        f"sum(rate(sluicegate_budget_returned_nano_usd_total{{@}}[$__rate_interval])) * 3600 {USD}",
                        "taken back by corrections",
                    ),
                ),
                lines(
                    "Entries by kind",
                    "settled is the usual end; recovered and expired follow deaths of an edge, corrections follow those.",
                    "ops",
                    ("sum by (kind) (rate(sluicegate_budget_entries_total{@}[$__rate_interval]))", "{{kind}}"),
                    stacked=True,
                ),
                lines(
                    "Entries above their hold",
                    "Calls that cost more than was held for them: only these can bring a budget above its cap.",
                    "ops",
                    ("sum(rate(sluicegate_budget_overruns_total{@}[$__rate_interval]))", "overruns"),
                ),
                lines(
                    "Lent to edges",
                    "Money on leases: held by the ledger, and what edges have not drawn of it yet.",
                    "currencyUSD",
                    (f"sum(sluicegate_budget_leased_nano_usd{{@}}) {USD}", "lent"),
                    (f"sum(sluicegate_edge_leased_nano_usd{{@}}) {USD}", "not drawn"),
                ),
            ),
        ),
        (
            "Refusals",
            (
                lines(
                    "Requests by verdict",
                    "How client requests ended at the edge; refused: by a budget or limit, rejected: by door or policy.",
                    "reqps",
                    ("sum by (verdict) (rate(sluicegate_edge_requests_total{@}[$__rate_interval]))", "{{verdict}}"),
                    stacked=True,
                ),
                lines(
                    "Answers of the owner",
                    "denied with its reason: spent, busy (others hold the money), a rate limit, an unpriced model.",
                    "ops",
                    (
                        "sum by (verdict, reason) (rate(sluicegate_budget_verdicts_total{@}[$__rate_interval]))",
                        "{{verdict}} {{reason}}",
                    ),
                    stacked=True,
                ),
                lines(
                    "Streams that asked for more",
                    "denied: the stream was cut at its hold, or finished, as its budget says.",
                    "ops",
                    ("sum by (answer) (rate(sluicegate_edge_extensions_total{@}[$__rate_interval]))", "{{answer}}"),
                ),
                lines(
                    "Without a verdict, without a price",
                    "Both should be flat at 0: attempts that no owner has admitted, and usage that no rate card covers.",
                    "ops",
                    ("sum(rate(sluicegate_edge_ungoverned_total{@}[$__rate_interval]))", "ungoverned"),
                    ("sum(rate(sluicegate_pricing_unpriced_total{@}[$__rate_interval]))", "unpriced"),
                ),
            ),
        ),
    ),
)
