"""`sluicegate requests`"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from services.cli import options, output
from services.cli.api import Api, Target, unit
from services.cli.output import Column, dollars, words

FOLLOW_SECONDS = 1.0
TOKENS = ("input_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_read_tokens", "output_tokens")
COLUMNS = (
    Column("received", "received_at", lambda at: str(at)[:19].replace("T", " ")),
    Column("key", "key"),
    Column("team", "team"),
    Column("model", "model"),
    Column("verdict", "verdict"),
    Column("status", "status", right=True),
    Column("outcome", "outcome"),
    Column("tokens", "tokens", right=True),
    Column("cost", "cost_nano_usd", dollars, right=True),
    Column("first ms", "ttft_ms", lambda ms: "" if ms is None or int(ms) < 0 else str(ms), right=True),
    Column("ms", "duration_ms", right=True),
    Column("request id", "request_id"),
)


@click.command("requests")
@click.argument("request_id", required=False)
@click.option("--follow", is_flag=True, help="Go on showing new ones; Ctrl-C ends it.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@click.option("--verdict", default="", help="admitted, refused, rejected, free or unavailable.")
@click.option("--customer", default="")
@click.option("--team", default="")
@click.option("--key", default="")
@click.option("--model", default="")
@options.as_json
@options.targeted
def command(request_id: str | None, follow: bool, limit: int, as_json: bool, target: Target, **filters: str) -> None:
    """The log of client requests, oldest of the latest first; with a request id, its whole story."""
    api = target.api()
    if request_id:
        _story(api.get(f"/api/v1/requests/{unit(request_id)}"), as_json)
    elif follow:
        with suppress(KeyboardInterrupt):  # the usual end
            for item in following(api, filters):
                print(json.dumps(item) if as_json else line(item), flush=True)
    else:
        items = api.get("/api/v1/requests", filters | {"limit": limit})["items"]
        rows = [item | {"tokens": tokens(item)} for item in reversed(items)]
        output.show(items if as_json else rows, COLUMNS, as_json=as_json, empty="no requests yet")


def tokens(item: dict[str, Any]) -> str:
    """All classes together, cache reads included."""
    return f"{sum(int(item.get(name) or 0) for name in TOKENS):,}"


def line(item: dict[str, Any]) -> str:
    """One request on one line, for --follow: columns of a fixed width need no table that knows all rows."""
    cells = (
        str(item["received_at"])[11:19],
        f"{item['status']}",
        f"{item['verdict']:<9}",
        f"{item['team']}/{item['key']}",
        str(item["model"]),
        f"{tokens(item)} tokens",
        dollars(item["cost_nano_usd"]) if item["priced"] else "not priced yet",
        f"{item['duration_ms']} ms",
        item["message"] or item["request_id"],
    )
    return "  ".join(cells)


def following(api: Api, filters: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Each request once, shortly after it came in; from now on."""
    shown: set[str] = {item["request_id"] for item in _latest(api, filters)}
    while True:
        time.sleep(FOLLOW_SECONDS)
        items = _latest(api, filters)
        yield from (item for item in reversed(items) if item["request_id"] not in shown)
        shown |= {item["request_id"] for item in items}


def _latest(api: Api, filters: dict[str, str]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.get("/api/v1/requests", dict(filters) | {"limit": 200})["items"]
    return items


def _story(story: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(story)
        return
    for title, part in (("request", story["request"]), ("decision", story["decision"])):
        rows = [{"name": name, "value": value} for name, value in part.items() if value not in ("", None, [])]
        output.show(rows, (Column("", "name"), Column("", "value", words)), as_json=False, title=title)
    for number, attempt in enumerate(story["attempts"], 1):
        rows = [{"name": name, "value": value} for name, value in attempt.items() if value not in ("", None, [])]
        output.show(rows, (Column("", "name"), Column("", "value", words)), as_json=False, title=f"entry {number}")
