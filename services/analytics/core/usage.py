"""Ledger entries as rows of usage_v1."""

from collections.abc import Iterator
from typing import Any

import msgspec

from services.analytics.core.tables import Column, Table
from shared.contracts.edge import UsageRecorded
from shared.contracts.ledger import Commit, Entry
from shared.contracts.pricing import PricedLine

TEXT, NAME, TIME, MONEY, COUNT = "String", "LowCardinality(String)", "DateTime64(6, 'UTC')", "Int64", "Int64"
LINES = (
    "Array(Tuple(meter String, quantity Int64, model String, iteration Int32, tier String, speed String, geo String, "
    "region String, batch Bool, rate_id String, list_pico_usd Int64, cost_pico_usd Int64, charge_pico_usd Int64))"
)


class UsageRow(msgspec.Struct, frozen=True):
    """An entry and where it stands in the log. quantities: of the lines, summed by meter."""

    entry: Entry
    usage: UsageRecorded
    quantities: dict[str, int]
    commit: Commit
    log_id: str
    stream_seq: int
    entry_index: int


def usage_rows(commit: Commit, log_id: str, stream_seq: int) -> Iterator[UsageRow]:
    """One row per entry; commits without entries, pure holds for one, have none. entry_index counts all events."""
    for index, event in enumerate(commit.events):
        if isinstance(event, Entry):
            quantities: dict[str, int] = {}
            for priced in event.usage.lines:
                meter = priced.line.meter
                quantities[meter] = quantities.get(meter, 0) + priced.line.quantity
            yield UsageRow(event, event.usage.usage, quantities, commit, log_id, stream_seq, index)


def entry_time(entry: Entry) -> int:
    """The instant that decides the period of budgets; ungoverned attempts have no admission and fall back."""
    usage = entry.usage.usage
    return entry.admitted_at or usage.admitted_at or usage.sent_at or usage.closed_at or entry.booked_at


def _line(priced: PricedLine) -> tuple[object, ...]:
    line = priced.line
    return (
        *(line.meter, line.quantity, line.model, line.iteration, line.tier, line.speed, line.geo, line.region),
        *(line.batch, priced.rate_id, priced.list_pico_usd, priced.cost_pico_usd, priced.charge_pico_usd),
    )


def _meter(*meters: str) -> Any:
    """The count of these meters together."""
    return lambda row: sum(row.quantities.get(meter, 0) for meter in meters)


def _usage(name: str, kind: str = NAME, column: str = "") -> Column[UsageRow]:
    """A field of the usage record as it stands."""
    return Column(column or name, kind, lambda row: getattr(row.usage, name))


def _principal(name: str) -> Column[UsageRow]:
    return Column(f"{name}_uid", NAME, lambda row: getattr(row.usage.principal, name))


USAGE: Table[UsageRow] = Table(
    "usage_v1",
    (
        Column("ts", TIME, lambda row: entry_time(row.entry)),
        Column("event_id", TEXT, lambda row: row.entry.event_id),
        Column("kind", NAME, lambda row: row.entry.kind),
        Column("corrects", TEXT, lambda row: row.entry.corrects),
        _usage("rid", TEXT),
        _usage("request_id", TEXT),
        _usage("attempt", "Int32"),
        Column("shard", NAME, lambda row: row.commit.shard),
        _usage("edge"),
        _usage("epoch", "Int64"),
        _usage("spool_seq", "Int64"),
        _principal("org"),
        _principal("customer"),
        _principal("team"),
        _principal("key"),
        _principal("project"),
        _principal("provider_config"),
        _usage("provider", NAME, "provider_uid"),
        Column("tags", "Map(String, String)", lambda row: row.usage.principal.tags),
        Column(
            "charges",
            "Array(Tuple(budget_id String, period_id String))",
            lambda row: [(charge.budget_id, charge.period_id) for charge in row.entry.charges],
        ),
        _usage("config_rev", "Int64"),
        _usage("session", TEXT, "session_id"),
        _usage("agent", TEXT, "agent_id"),
        _usage("parent_agent", TEXT, "parent_agent_id"),
        _usage("prompt_id", TEXT),
        _usage("request_class"),
        _usage("client_version"),
        _usage("operation"),
        _usage("client_format"),
        _usage("upstream_format"),
        _usage("route"),
        _usage("credential"),
        _usage("region"),
        _usage("request_model"),
        _usage("canonical_model"),
        _usage("wire_model"),
        _usage("response_model"),
        _usage("upstream_request_id", TEXT),
        _usage("trace_id", TEXT),
        Column("input_tokens", COUNT, _meter("input")),
        Column("cache_write_5m_tokens", COUNT, _meter("cache_write_5m")),
        Column("cache_write_1h_tokens", COUNT, _meter("cache_write_1h")),
        Column("cache_read_tokens", COUNT, _meter("cache_read")),
        # The meters are disjoint; people mean by output what the provider does, thinking included.
        Column("output_tokens", COUNT, _meter("output", "thinking")),
        Column("thinking_tokens", COUNT, _meter("thinking")),
        Column("web_search_requests", COUNT, _meter("web_search")),
        Column("lines", LINES, lambda row: [_line(priced) for priced in row.entry.usage.lines]),
        Column("provider_usage", TEXT, lambda row: row.usage.provider_usage.decode(errors="replace")),
        Column("unknown_counters", "Array(String)", lambda row: list(row.usage.unknown_counters)),
        Column("list_nano_usd", MONEY, lambda row: row.entry.usage.list_nano_usd),
        Column("cost_nano_usd", MONEY, lambda row: row.entry.usage.cost_nano_usd),
        Column("charge_nano_usd", MONEY, lambda row: row.entry.usage.charge_nano_usd),
        Column("held_nano_usd", MONEY, lambda row: row.entry.held_nano_usd),
        Column("overrun_nano_usd", MONEY, lambda row: row.entry.overrun_nano_usd),
        _usage("billing_class"),
        Column("price_version", NAME, lambda row: row.entry.usage.price_version),
        _usage("estimated", "Bool"),
        Column("unpriced", "Bool", lambda row: row.entry.usage.unpriced),
        _usage("ungoverned", "Bool"),
        Column("late", "Bool", lambda row: row.entry.late),
        _usage("status", "Int32"),
        _usage("error_type"),
        _usage("outcome"),
        _usage("stop_reason"),
        _usage("stream", "Bool"),
        _usage("ttft_ms", "Int64"),
        _usage("duration_ms", "Int64"),
        Column("body_digest", TEXT, lambda row: row.usage.body_digest.hex()),
        Column("admitted_at", TIME, lambda row: row.entry.admitted_at or row.usage.admitted_at),
        _usage("sent_at", TIME),
        _usage("closed_at", TIME),
        Column("booked_at", TIME, lambda row: row.entry.booked_at),
        Column("committed_at", TIME, lambda row: row.commit.at),
        Column("owner_epoch", "Int64", lambda row: row.commit.owner_epoch),
        Column("log_id", NAME, lambda row: row.log_id),
        Column("stream_seq", "UInt64", lambda row: row.stream_seq),
        Column("entry_index", "UInt32", lambda row: row.entry_index),
    ),
)
