"""The records of a request, from its first byte to its last: pure builders, in the order they are needed."""

import msgspec

from services.edge.core import usage as usages
from services.edge.core.facts import Facts
from services.edge.core.journal import Sent, Started, Unfinished
from services.edge.core.policy import Attempt
from services.edge.core.usage import Asked, Usage
from shared.contracts.attribution import Principal
from shared.contracts.budget import DEFAULT_SHARD, Granted, Reserve
from shared.contracts.edge import Line, RequestCompleted, UsageRecorded
from shared.contracts.message import Micros
from shared.rates.names import canonical


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """This edge worker in this life. epoch: counts its starts."""

    edge: str
    epoch: int


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One client request once the door has let it in. facts: None for what has no body. shard: of its organisation.

    retry: the client tries again what the provider has failed.
    """

    me: Identity
    request_id: str
    received_at: Micros
    config_rev: int
    principal: Principal
    operation: str = "messages"
    client_format: str = "anthropic"
    facts: Facts | None = None
    shard: str = DEFAULT_SHARD
    retry: bool = False


def principal_of(context: Context, attempt: Attempt) -> Principal:
    """The request's path, with the provider config that this attempt goes by."""
    return msgspec.structs.replace(context.principal, provider_config=attempt.provider_config)


def reserve(context: Context, rid: str, number: int, attempt: Attempt, replaces_rid: str = "") -> Reserve:
    """number: of the attempt within its request, from 1."""
    facts = _facts(context)
    return Reserve(
        rid=rid,
        request_id=context.request_id,
        attempt=number,
        edge=context.me.edge,
        epoch=context.me.epoch,
        config_rev=context.config_rev,
        principal=principal_of(context, attempt),
        provider=attempt.provider.uid,
        model=attempt.wire_model,
        max_tokens=facts.max_tokens,
        bounds=facts.bounds,
        input_bytes=facts.input_bytes,
        stream=facts.stream,
        replaces_rid=replaces_rid,
        session=facts.session,
        agent=facts.agent,
        operation=context.operation,
        credential=attempt.credential.id,
        speed=facts.speed,
        geo=facts.geo,
        cache_ttl=facts.cache_ttl,
        body_digest=facts.body_digest,
        hold_class="stream" if facts.stream else "call",
        visible_output=facts.visible_output,
        retry=context.retry,
    )


def started(context: Context, rid: str, number: int, attempt: Attempt) -> Started:
    """For `spool.start`: the attempt's usage record as it stands before anything has happened."""
    facts = _facts(context)
    usage = UsageRecorded(
        rid=rid,
        request_id=context.request_id,
        attempt=number,
        kind="void",
        shard=context.shard,
        edge=context.me.edge,
        epoch=context.me.epoch,
        spool_seq=0,
        principal=principal_of(context, attempt),
        config_rev=context.config_rev,
        session=facts.session,
        agent=facts.agent,
        parent_agent=facts.parent_agent,
        prompt_id=facts.prompt_id,
        request_class=facts.request_class,
        client_version=facts.client_version,
        operation=context.operation,
        client_format=context.client_format,
        upstream_format=attempt.provider.kind,
        route=attempt.provider.name,
        provider=attempt.provider.uid,
        credential=attempt.credential.id,
        region=attempt.credential.region or attempt.provider.region,
        request_model=facts.model,
        canonical_model=canonical(attempt.wire_model),
        wire_model=attempt.wire_model,
        trace_id=facts.trace.trace_id,
        trace_sampled=facts.trace.sampled,
        stream=facts.stream,
        body_digest=facts.body_digest,
        outcome="not_sent",
    )
    return Started(
        usage=usage,
        input_tokens=facts.input_estimate,
        output_tokens=facts.max_tokens,
        speed=facts.speed,
        geo=facts.geo,
    )


def sent(start: Started, granted: Granted | None, at: Micros) -> Sent:
    """For `spool.sent`, right before the first byte goes upstream. granted None: no owner answered, so ungoverned."""
    usage = msgspec.structs.replace(start.usage, sent_at=at, ungoverned=granted is None)
    if granted is not None:
        usage = msgspec.structs.replace(
            usage,
            charges=granted.charges,
            held_nano_usd=granted.held_nano_usd,
            admitted_at=granted.admitted_at,
            lease=granted.lease,
        )
    return Sent(
        usage=usage,
        input_tokens=granted.held_input_tokens if granted else start.input_tokens,
        output_tokens=granted.held_output_tokens if granted else start.output_tokens,
        speed=start.speed,
        geo=start.geo,
    )


def asked(context: Context, attempt: Attempt, held: Sent) -> Asked:
    """For the meter."""
    facts = _facts(context)
    return Asked(
        model=attempt.wire_model,
        region=held.usage.region,
        speed=facts.speed,
        geo=facts.geo,
        input_estimate=min(facts.input_estimate, held.input_tokens) if held.input_tokens else facts.input_estimate,
        most_output_tokens=held.output_tokens or facts.max_tokens,
        stream=facts.stream,
    )


def output_left(granted: Granted, input_tokens: int, extended: int = 0) -> int:
    """Output tokens that the hold pays for, once so much input was counted: what passed its bound comes from the output.

    extended: tokens granted since. Input below its bound leaves nothing here: at TRUEUP budget takes that money back.
    """
    held = granted.held_output_tokens + extended
    above = input_tokens - granted.held_input_tokens
    for_output = granted.held_nano_usd - granted.held_input_nano_usd
    if above <= 0 or for_output <= 0 or granted.held_input_tokens <= 0:
        return held
    cost = -(-above * granted.held_input_nano_usd // granted.held_input_tokens)
    return max(0, held - -(-cost * granted.held_output_tokens // for_output))


def raised(held: Sent, more: Granted) -> Sent:
    """For `spool.sent` again, after an extension: what a successor closes with, where it finds nothing better."""
    usage = msgspec.structs.replace(held.usage, held_nano_usd=more.held_nano_usd)
    return msgspec.structs.replace(held, usage=usage, output_tokens=held.output_tokens + more.held_output_tokens)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt that was sent ended. first_byte_at: of the answer, 0 when none came."""

    outcome: str
    closed_at: Micros
    status: int = 0
    error_type: str = ""
    first_byte_at: Micros = 0
    upstream_request_id: str = ""


def settled(held: Sent, usage: Usage, ending: Ending) -> UsageRecorded:
    """For `spool.end`. A complete error answer without usage is void: nothing can be billed for it."""
    free = ending.outcome == "upstream_error" and not usage.lines and not usage.unknown_counters
    base = held.usage
    return msgspec.structs.replace(
        base,
        kind="void" if free else "settled",
        closed_at=ending.closed_at,
        ttft_ms=(ending.first_byte_at - base.sent_at) // 1000 if ending.first_byte_at else -1,
        duration_ms=max(0, ending.closed_at - base.sent_at) // 1000,
        response_model=usage.response_model,
        lines=usage.lines,
        provider_usage=usage.provider_usage,
        status=ending.status,
        error_type=ending.error_type,
        outcome=ending.outcome,
        stop_reason=usage.stop_reason,
        estimated=usage.estimated,
        upstream_request_id=ending.upstream_request_id[:128],
        unknown_counters=usage.unknown_counters,
    )


def unanswered(held: Sent, request: Asked, hung_up: bool, closed_at: Micros) -> Usage:
    """Nothing of an answer was seen. hung_up: by us, for a client that left or a provider that was silent for too long.

    The provider has worked all the same; one that broke off by itself has not.
    """
    if hung_up:
        return usages.unseen(request, max(0, closed_at - held.usage.sent_at) // 1000)
    return Usage(estimated=True)


def voided(start: Started, granted: Granted | None, closed_at: Micros) -> UsageRecorded:
    """For `spool.end` of an attempt that may have been granted but was never sent."""
    usage = start.usage if granted is None else sent(start, granted, 0).usage
    return msgspec.structs.replace(usage, kind="void", outcome="not_sent", closed_at=closed_at)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How a client request ended. The fields are those of RequestCompleted."""

    verdict: str
    closed_at: Micros
    status: int
    reason: str = ""
    budget_id: str = ""
    error_type: str = ""
    message: str = ""
    outcome: str = "ok"
    attempts: tuple[str, ...] = ()
    admitted_at: Micros = 0
    reserve_us: int = -1
    first_byte_at: Micros = 0
    wire_model: str = ""
    provider: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    repeat: bool = False


def completed(context: Context, verdict: Verdict, provider_config: str = "") -> RequestCompleted:
    """For `spool.completed`; refusals at the door have an empty principal."""
    facts = context.facts
    first = verdict.first_byte_at
    return RequestCompleted(
        request_id=context.request_id,
        edge=context.me.edge,
        epoch=context.me.epoch,
        spool_seq=0,
        principal=msgspec.structs.replace(context.principal, provider_config=provider_config),
        verdict=verdict.verdict,
        reason=verdict.reason,
        budget_id=verdict.budget_id,
        status=verdict.status,
        error_type=verdict.error_type,
        message=verdict.message,
        outcome=verdict.outcome,
        attempts=verdict.attempts,
        config_rev=context.config_rev,
        received_at=context.received_at,
        admitted_at=verdict.admitted_at,
        closed_at=verdict.closed_at,
        reserve_us=verdict.reserve_us,
        ttft_ms=(first - context.received_at) // 1000 if first else -1,
        duration_ms=max(0, verdict.closed_at - context.received_at) // 1000,
        operation=context.operation,
        client_format=context.client_format,
        client_version=facts.client_version if facts else "",
        session=facts.session if facts else "",
        agent=facts.agent if facts else "",
        parent_agent=facts.parent_agent if facts else "",
        prompt_id=facts.prompt_id if facts else "",
        request_class=facts.request_class if facts else "",
        request_model=facts.model if facts else "",
        wire_model=verdict.wire_model,
        provider=verdict.provider,
        stream=facts.stream if facts else False,
        body_digest=facts.body_digest if facts else b"",
        bytes_in=verdict.bytes_in,
        bytes_out=verdict.bytes_out,
        trace_id=facts.trace.trace_id if facts else "",
        parent_span_id=facts.trace.parent_span_id if facts else "",
        trace_sampled=facts.trace.sampled if facts else True,
        repeat=verdict.repeat,
    )


def recovered(unfinished: Unfinished, me: Identity, now: Micros) -> UsageRecorded:
    """The end of an attempt whose process died.

    Not sent: void. After a reboot the record of sending may be lost with the page cache, so it counts as sent.
    Sent: what was last seen of its answer, else all that was held.
    """
    last = unfinished.sent or unfinished.started
    base = msgspec.structs.replace(last.usage, edge=me.edge, epoch=me.epoch, closed_at=now)
    if unfinished.sent is None and not unfinished.rebooted:
        return msgspec.structs.replace(base, kind="void", outcome="not_sent")
    seen = unfinished.progressed
    return msgspec.structs.replace(
        base,
        kind="recovered",
        outcome="edge_died",
        estimated=True,
        lines=seen.lines if seen else _all_of(last),
        response_model=seen.response_model if seen else "",
        provider_usage=seen.provider_usage if seen else b"",
    )


def _all_of(last: Sent | Started) -> tuple[Line, ...]:
    """Everything that was held."""
    quantities = (("input", last.input_tokens), ("output", last.output_tokens))
    common = Line(
        meter="", quantity=0, model=last.usage.wire_model, speed=last.speed, geo=last.geo, region=last.usage.region
    )
    return tuple(
        msgspec.structs.replace(common, meter=meter, quantity=quantity) for meter, quantity in quantities if quantity
    )


def recovered_request(attempts: tuple[UsageRecorded, ...], me: Identity, now: Micros) -> RequestCompleted:
    """The record of a client request that the last process could not write. attempts: at least one, in order."""
    last = attempts[-1]
    was_sent = any(attempt.sent_at for attempt in attempts)
    return RequestCompleted(
        request_id=last.request_id,
        edge=me.edge,
        epoch=me.epoch,
        spool_seq=0,
        principal=last.principal,
        verdict="admitted" if was_sent else "unavailable",
        outcome="edge_died",
        status=last.status,
        attempts=tuple(attempt.rid for attempt in attempts),
        config_rev=last.config_rev,
        received_at=attempts[0].admitted_at or attempts[0].sent_at or now,
        admitted_at=attempts[0].admitted_at,
        closed_at=now,
        operation=last.operation,
        client_format=last.client_format,
        client_version=last.client_version,
        session=last.session,
        agent=last.agent,
        parent_agent=last.parent_agent,
        prompt_id=last.prompt_id,
        request_class=last.request_class,
        request_model=last.request_model,
        wire_model=last.wire_model,
        provider=last.provider,
        stream=last.stream,
        body_digest=last.body_digest,
        trace_id=last.trace_id,
        trace_sampled=last.trace_sampled,
    )


def _facts(context: Context) -> Facts:
    assert context.facts is not None, "only requests with a body are reserved"
    return context.facts
