"""Client requests as rows of requests_v1."""

import msgspec

from services.analytics.core.tables import Column, Table
from shared.contracts.edge import RequestCompleted

TEXT, NAME, TIME = "String", "LowCardinality(String)", "DateTime64(6, 'UTC')"


class RequestRow(msgspec.Struct, frozen=True):
    """A request and where it stands in the log."""

    request: RequestCompleted
    log_id: str
    stream_seq: int


def request_time(request: RequestCompleted) -> int:
    """When it arrived; a request whose edge died may only know its end."""
    return request.received_at or request.admitted_at or request.closed_at


def _field(name: str, kind: str = NAME, column: str = "") -> Column[RequestRow]:
    """A field of the message as it stands."""
    return Column(column or name, kind, lambda row: getattr(row.request, name))


def _principal(name: str) -> Column[RequestRow]:
    return Column(f"{name}_uid", NAME, lambda row: getattr(row.request.principal, name))


REQUESTS: Table[RequestRow] = Table(
    "requests_v1",
    (
        Column("ts", TIME, lambda row: request_time(row.request)),
        _field("request_id", TEXT),
        _field("verdict"),
        _field("reason"),
        _field("budget_id", TEXT),
        _field("status", "Int32"),
        _field("error_type"),
        _field("message", TEXT),
        _field("outcome"),
        Column("attempts", "Array(String)", lambda row: list(row.request.attempts)),
        _principal("org"),
        _principal("customer"),
        _principal("team"),
        _principal("key"),
        _principal("project"),
        _field("provider", NAME, "provider_uid"),
        Column("tags", "Map(String, String)", lambda row: row.request.principal.tags),
        _field("config_rev", "Int64"),
        _field("session", TEXT, "session_id"),
        _field("agent", TEXT, "agent_id"),
        _field("parent_agent", TEXT, "parent_agent_id"),
        _field("prompt_id", TEXT),
        _field("request_class"),
        _field("client_version"),
        _field("operation"),
        _field("client_format"),
        _field("request_model"),
        _field("wire_model"),
        _field("stream", "Bool"),
        _field("reserve_us", "Int64"),
        _field("ttft_ms", "Int64"),
        _field("duration_ms", "Int64"),
        _field("bytes_in", "Int64"),
        _field("bytes_out", "Int64"),
        Column("body_digest", TEXT, lambda row: row.request.body_digest.hex()),
        _field("repeat", "Bool"),
        _field("trace_id", TEXT),
        _field("edge"),
        _field("epoch", "Int64"),
        _field("spool_seq", "Int64"),
        _field("admitted_at", TIME),
        _field("closed_at", TIME),
        Column("log_id", NAME, lambda row: row.log_id),
        Column("stream_seq", "UInt64", lambda row: row.stream_seq),
    ),
)
