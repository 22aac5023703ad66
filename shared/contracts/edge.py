"""Edge carries the traffic and tells what each attempt used and how each request ended."""

from shared.contracts.attribution import Charge, Principal
from shared.contracts.message import Message, Micros, Part, Uid

USAGE_RECORDED = "usage.recorded.{shard}"  # event, USAGE: UsageRecorded, bundled
REQUEST_COMPLETED = "request.completed"  # event, REQUESTS: RequestCompleted, bundled
EDGE_STATUS = "edge.{edge}.status"  # event, not stored: EdgeStatus, every 10 s and when something changed
EDGE_DECISION = "edge.{edge}.decision"  # request/reply: budget.Decision -> DecisionAck
EDGE_VERDICT = "edge.{edge}.verdict"  # event, not stored: budget.Verdict, the late answer to a queued Reserve

METERS = ("input", "cache_write_5m", "cache_write_1h", "cache_read", "output", "thinking", "web_search", "web_fetch")
"""Meters known today. They are disjoint: `output` leaves out what `thinking` counts. Others are priced as unknown."""


class Line(Part, frozen=True, kw_only=True):
    """One meter of one attempt; never folded with another.

    quantity: tokens, or requests for web_search and web_fetch.
    model: the model that served it, as the provider's answer named it.
    iteration: index in the provider's `usage.iterations`, 0 without them.
    """

    meter: str
    quantity: int
    model: str
    iteration: int = 0
    tier: str = "standard"
    speed: str = "standard"
    geo: str = ""
    region: str = ""
    batch: bool = False


class UsageRecorded(Message, frozen=True, kw_only=True):
    """What one upstream attempt used. Idempotent by `rid:kind`; (edge, epoch, shard, spool_seq) is free of gaps.

    kind: settled (an answer ended, well or not), void (nothing was sent, or nothing can be billed),
        recovered (the edge died between sending and the end).
    charges: as granted; empty when ungoverned, then set at the close.
    outcome: ok, client_gone, upstream_error (a complete error answer), upstream_broken, cut, not_sent, edge_died.
    estimated: the quantities rest on what was seen passing, not on the provider's final count.
    provider_usage: the provider's own usage object as JSON, merged over the stream; empty when none was seen.
    held_nano_usd: what was granted for it, so that an owner that lost the hold can still book it.
    lease: what it was paid from, where the edge admitted it by itself: its end may be told before its beginning.
    trace_sampled: whether the caller records the trace that trace_id names; so in RequestCompleted.
    """

    rid: str
    request_id: str
    attempt: int
    kind: str
    shard: str
    edge: str
    epoch: int
    spool_seq: int
    principal: Principal
    charges: tuple[Charge, ...] = ()
    config_rev: int = 0
    held_nano_usd: int = 0
    admitted_at: Micros = 0
    sent_at: Micros = 0
    closed_at: Micros = 0
    ttft_ms: int = -1
    duration_ms: int = 0
    session: str = ""
    agent: str = ""
    parent_agent: str = ""
    prompt_id: str = ""
    request_class: str = ""
    client_version: str = ""
    operation: str = "messages"
    client_format: str = "anthropic"
    upstream_format: str = "anthropic"
    route: str = ""
    provider: Uid = ""
    credential: str = ""
    region: str = ""
    request_model: str = ""
    canonical_model: str = ""
    wire_model: str = ""
    response_model: str = ""
    trace_id: str = ""
    stream: bool = False
    body_digest: bytes = b""
    lines: tuple[Line, ...] = ()
    provider_usage: bytes = b""
    status: int = 0
    error_type: str = ""
    outcome: str = "ok"
    stop_reason: str = ""
    estimated: bool = False
    upstream_request_id: str = ""
    ungoverned: bool = False
    billing_class: str = "api"
    unknown_counters: tuple[str, ...] = ()
    lease: str = ""
    trace_sampled: bool = True


class RequestCompleted(Message, frozen=True, kw_only=True):
    """One client request, refused ones too. Idempotent by `request_id`.

    verdict: admitted, refused (a budget or limit said no), rejected (door, policy or malformed), free (costs nothing),
        unavailable (we could not decide).
    reason: with refused the Denied.reason, with rejected the error code; empty otherwise.
    attempts: the rids, in order.
    repeat: the same (session, agent, body_digest) was seen in the last minute, so this is the client's own retry.
    parent_span_id: of the caller's span, in the trace that trace_id names.
    """

    request_id: str
    edge: str
    epoch: int
    spool_seq: int
    principal: Principal
    verdict: str
    reason: str = ""
    budget_id: str = ""
    status: int = 0
    error_type: str = ""
    message: str = ""
    outcome: str = "ok"
    attempts: tuple[str, ...] = ()
    config_rev: int = 0
    received_at: Micros = 0
    admitted_at: Micros = 0
    closed_at: Micros = 0
    reserve_us: int = -1
    ttft_ms: int = -1
    duration_ms: int = 0
    operation: str = ""
    client_format: str = "anthropic"
    client_version: str = ""
    session: str = ""
    agent: str = ""
    parent_agent: str = ""
    prompt_id: str = ""
    request_class: str = ""
    request_model: str = ""
    wire_model: str = ""
    provider: Uid = ""
    stream: bool = False
    body_digest: bytes = b""
    bytes_in: int = 0
    bytes_out: int = 0
    trace_id: str = ""
    repeat: bool = False
    parent_span_id: str = ""
    trace_sampled: bool = True


class EdgeStatus(Message, frozen=True, kw_only=True):
    """An edge worker's heartbeat: what it runs on, and the inventory of attempts in flight.

    delivered_epoch: the broker has every record of the worker's starts up to this one.
    """

    edge: str
    epoch: int
    at: Micros
    config_rev: int = 0
    decision_version: int = 0
    live: tuple[str, ...] = ()
    spool_records: int = 0
    draining: bool = False
    delivered_epoch: int = 0


class DecisionAck(Message, frozen=True, kw_only=True):
    """The edge has applied the decision."""

    edge: str
    version: int
