"""`sluicegate usage`"""

import sys
from typing import Any

import click

from services.cli import options, output
from services.cli.api import Target
from services.cli.output import Column, count, dollars, words

GROUPS = ("customer", "team", "key", "model", "provider", "session", "day", "hour", "billing_class")
SUMS = (
    Column("requests", "requests", count, right=True),
    Column("input", "input_tokens", count, right=True),
    Column("cache write 5m", "cache_write_5m_tokens", count, right=True),
    Column("cache write 1h", "cache_write_1h_tokens", count, right=True),
    Column("cache read", "cache_read_tokens", count, right=True),
    Column("output", "output_tokens", count, right=True),
    Column("thinking", "thinking_tokens", count, right=True),
    Column("cost", "cost_nano_usd", dollars, right=True),
)


@click.command("usage")
@click.option(
    "--group-by", default="team,model", show_default=True, help=f"Some of {', '.join(GROUPS)}; commas between."
)
@click.option("--from", "from_", default="", help="Date or RFC 3339 instant.")
@click.option("--to", default="", help="The same, exclusive.")
@click.option("--customer", default="")
@click.option("--team", default="")
@click.option("--key", default="")
@click.option("--model", default="")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet", "focus"]),
    default="table",
    show_default=True,
    help="parquet and focus are files: redirect them.",
)
@options.as_json
@options.targeted
def command(group_by: str, form: str, as_json: bool, target: Target, **filters: Any) -> None:
    """Spend and tokens by group."""
    form = "json" if as_json else form
    query = {"group_by": group_by.replace(" ", ""), "from": filters.pop("from_"), **filters}
    if form in ("csv", "parquet", "focus"):
        sys.stdout.buffer.write(target.api().raw("GET", "/api/v1/usage", query=query | {"format": form}))
        return
    answer = target.api().get("/api/v1/usage", query)
    if form == "json":
        output.show_json(answer)
        return
    groups = tuple(Column(name, name, words) for name in answer["group_by"])
    total = dict(answer["totals"]) | ({groups[0].field: "total"} if groups else {})
    output.show([*answer["items"], total], (*groups, *SUMS), as_json=False)
