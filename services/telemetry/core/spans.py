"""Records as spans: one for the client's request, one below it for each attempt at a provider."""

from typing import Literal
from urllib.parse import urlsplit

import msgspec

from services.telemetry.core.attributes import LONGEST_TEXT, MOST, Attributes, kept, of_principal
from services.telemetry.core.identity import Caller, caller, span_of_attempt, span_of_request, trace_of
from shared import telemetry
from shared.contracts.edge import RequestCompleted, UsageRecorded
from shared.contracts.message import Micros
from shared.contracts.pricing import UsagePriced

OPERATIONS = {"messages": "chat"}
"""Of ours, by the conventions' word; others keep their name."""

BROKEN = frozenset({"upstream_error", "upstream_broken", "cut", "not_sent", "edge_died"})
"""Outcomes that are errors. A client that left has what it wanted."""

INPUT = frozenset({"input", "cache_read", "cache_write_5m", "cache_write_1h"})
CACHE_WRITES = frozenset({"cache_write_5m", "cache_write_1h"})
OUTPUT = frozenset({"output", "thinking"})
THINKING = frozenset({"thinking"})


class Event(msgspec.Struct, frozen=True):
    """Something that happened within a span."""

    name: str
    at_ns: int


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """span_id is the same whenever the record is read. trace_id: of the caller, if any, else the request's own.

    caller: of the request. request_span_id: of the request's span; an attempt's parent.
    times: nanoseconds since 1970, end never before start.
    """

    name: str
    kind: Literal["server", "client"]
    trace_id: int
    span_id: int
    request_span_id: int
    caller: Caller | None
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: tuple[Event, ...] = ()
    error: bool = False


class Address(msgspec.Struct, frozen=True):
    """Where a provider answers."""

    host: str
    port: int


def address(base_url: str) -> Address | None:
    """None where the URL names none."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return Address(host, port or (80 if parts.scheme == "http" else 443)) if host else None


def request_span(record: RequestCompleted) -> Span:
    """From the first byte of a request to the last of its answer; of a refused one too."""
    start = record.received_at or record.admitted_at or record.closed_at
    start_ns, end_ns = _times(start, record.closed_at)
    parent = caller(record.trace_id, record.parent_span_id, record.trace_sampled)
    own = span_of_request(record.request_id)
    return Span(
        name=_named("sluicegate", record.operation or "request"),
        kind="server",
        trace_id=parent.trace_id if parent else trace_of(record.request_id),
        span_id=own,
        request_span_id=own,
        caller=parent,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=_of_request(record),
        events=_moments(record, start_ns, end_ns),
        error=record.status >= 500 or record.outcome in BROKEN,
    )


def _of_request(record: RequestCompleted) -> Attributes:
    measured: Attributes = {telemetry.RESERVE_US: record.reserve_us} if record.reserve_us >= 0 else {}
    if record.status:
        measured[telemetry.HTTP_RESPONSE_STATUS_CODE] = record.status
    return kept(
        measured
        | of_principal(record.principal)
        | {
            telemetry.REQUEST_ID: record.request_id,
            telemetry.REQUEST_CLASS: record.request_class,
            telemetry.REQUEST_BYTES: record.bytes_in,
            telemetry.RESPONSE_BYTES: record.bytes_out,
            telemetry.REQUEST_REPEAT: record.repeat,
            telemetry.GEN_AI_REQUEST_MODEL: record.request_model,
            telemetry.GEN_AI_REQUEST_STREAM: record.stream,
            telemetry.GEN_AI_CONVERSATION_ID: record.session,
            telemetry.GEN_AI_AGENT_ID: record.agent,
            telemetry.PARENT_AGENT_ID: record.parent_agent,
            telemetry.CLIENT_VERSION: record.client_version,
            telemetry.EDGE: record.edge,
            telemetry.VERDICT: record.verdict,
            telemetry.OUTCOME: record.outcome,
            telemetry.REFUSAL_REASON: record.reason,
            telemetry.REFUSAL_BUDGET: record.budget_id,
            telemetry.ATTEMPT_COUNT: len(record.attempts),
            telemetry.ERROR_TYPE: _error_type(record.error_type, record.outcome, record.status),
        }
    )


def _moments(record: RequestCompleted, start_ns: int, end_ns: int) -> tuple[Event, ...]:
    moments = []
    if record.admitted_at:
        moments.append(Event("admitted", record.admitted_at * 1_000))
    if record.ttft_ms >= 0:
        moments.append(Event("first_byte", start_ns + record.ttft_ms * 1_000_000))
    return tuple(msgspec.structs.replace(one, at_ns=min(max(one.at_ns, start_ns), end_ns)) for one in moments)


def attempt_span(priced: UsagePriced, server: Address | None = None) -> Span | None:
    """From the first byte sent to a provider to the end of its answer. None for an attempt that was never admitted:
    nothing happened then, and the request's span tells why.
    """
    usage = priced.usage
    start = usage.sent_at or usage.admitted_at
    if start <= 0:
        return None
    start_ns, end_ns = _times(start, usage.closed_at)
    parent = caller(usage.trace_id, "", usage.trace_sampled)
    ttft_ns = usage.ttft_ms * 1_000_000
    return Span(
        name=_named(operation(usage) or "attempt", model(usage)),
        kind="client",
        trace_id=parent.trace_id if parent else trace_of(usage.request_id),
        span_id=span_of_attempt(usage.rid),
        request_span_id=span_of_request(usage.request_id),
        caller=parent,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=_of_attempt(priced, server),
        events=(Event("first_byte", min(start_ns + ttft_ns, end_ns)),) if ttft_ns >= 0 else (),
        error=usage.outcome in BROKEN,
    )


def operation(usage: UsageRecorded) -> str:
    return OPERATIONS.get(usage.operation, usage.operation)


def model(usage: UsageRecorded) -> str:
    """What the provider was asked for; what the client asked us for is on the request's span."""
    return usage.wire_model or usage.request_model


def tokens(usage: UsageRecorded, meters: frozenset[str]) -> int:
    """Never below 0, and within what a span can hold."""
    return min(max(0, sum(line.quantity for line in usage.lines if line.meter in meters)), MOST)


def error_type(usage: UsageRecorded) -> str:
    """Of an attempt: the provider's word, else ours; empty where it was no error."""
    return _error_type(usage.error_type, usage.outcome, usage.status)[:LONGEST_TEXT]


def _of_attempt(priced: UsagePriced, server: Address | None) -> Attributes:
    usage = priced.usage
    where: Attributes = {telemetry.SERVER_ADDRESS: server.host, telemetry.SERVER_PORT: server.port} if server else {}
    if usage.status:
        where[telemetry.HTTP_RESPONSE_STATUS_CODE] = usage.status
    return kept(
        where
        | of_principal(usage.principal)
        | _of_call(usage)
        | _of_usage(usage)
        | {
            telemetry.REQUEST_ID: usage.request_id,
            telemetry.ATTEMPT_ID: usage.rid,
            telemetry.ATTEMPT_NUMBER: usage.attempt,
            telemetry.PROVIDER: usage.route,
            telemetry.REGION: usage.region,
            telemetry.CREDENTIAL: usage.credential,
            telemetry.EDGE: usage.edge,
            telemetry.OUTCOME: usage.outcome,
            telemetry.COST_NANO_USD: priced.cost_nano_usd,
            telemetry.LIST_NANO_USD: priced.list_nano_usd,
            telemetry.CHARGE_NANO_USD: priced.charge_nano_usd,
            telemetry.PRICE_VERSION: priced.price_version,
            telemetry.BILLING_CLASS: usage.billing_class,
            telemetry.ESTIMATED: usage.estimated,
            telemetry.UNPRICED: priced.unpriced,
            telemetry.UNGOVERNED: usage.ungoverned,
            telemetry.UPSTREAM_REQUEST_ID: usage.upstream_request_id,
        }
    )


def _of_call(usage: UsageRecorded) -> Attributes:
    """By the conventions for the span of a model's client."""
    return {
        telemetry.GEN_AI_OPERATION_NAME: operation(usage),
        telemetry.GEN_AI_PROVIDER_NAME: usage.upstream_format,
        telemetry.GEN_AI_REQUEST_MODEL: model(usage),
        telemetry.GEN_AI_REQUEST_STREAM: usage.stream,
        telemetry.GEN_AI_RESPONSE_MODEL: usage.response_model,
        telemetry.GEN_AI_RESPONSE_FINISH_REASONS: (usage.stop_reason,),
        telemetry.GEN_AI_CONVERSATION_ID: usage.session,
        telemetry.GEN_AI_AGENT_ID: usage.agent,
        telemetry.ERROR_TYPE: error_type(usage),
    }


def _of_usage(usage: UsageRecorded) -> Attributes:
    found: Attributes = {}
    if usage.lines:
        found[telemetry.GEN_AI_USAGE_INPUT_TOKENS] = tokens(usage, INPUT)
        found[telemetry.GEN_AI_USAGE_OUTPUT_TOKENS] = tokens(usage, OUTPUT)
        found[telemetry.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = tokens(usage, frozenset({"cache_read"}))
        found[telemetry.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS] = tokens(usage, CACHE_WRITES)
    if thinking := tokens(usage, THINKING):
        found[telemetry.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS] = thinking
    if usage.stream and usage.ttft_ms >= 0:
        found[telemetry.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = usage.ttft_ms / 1_000
    return found


def _error_type(told: str, outcome: str, status: int) -> str:
    if told:
        return told
    if status >= 400:
        return str(status)
    return outcome if outcome in BROKEN else ""


def _named(first: str, second: str) -> str:
    return f"{first} {second}".strip()[:LONGEST_TEXT]


def _times(start: Micros, end: Micros) -> tuple[int, int]:
    """Nanoseconds within what OTLP holds; what ended before it began, by clocks that were set, took no time."""
    start_ns = min(max(0, start) * 1_000, MOST)
    return start_ns, min(max(start_ns, end * 1_000), MOST)
