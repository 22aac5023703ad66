"""Who gets in: one step over every budget of the path, so that calls in flight cannot jointly overspend."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from services.budget.core import rate_limits
from services.budget.core.limits import Catalogue, Facts, Limit, Path
from services.budget.core.periods import Period
from services.budget.core.state import Counter, Hold, State, kept_of_replaced, mark_key
from services.budget.core.tariff import Size, Tariff
from services.budget.core.verdicts import no_budget, spent_refusal, spread, standings
from shared.contracts.attribution import Charge, Principal
from shared.contracts.budget import Denied, Granted, Reserve, Standing
from shared.contracts.ledger import Held
from shared.contracts.message import Micros, NanoUSD


class Rules(msgspec.Struct, frozen=True):
    """What the owner decides by: the organisation and the prices, both as of one moment."""

    catalogue: Catalogue
    tariff: Tariff


class Room(msgspec.Struct, frozen=True, gc=False):
    """How one budget stands before a grant. left = allowed - spent, free = left - held (and tied, see Allowance).

    had_its_turn: a fallback, with what the attempt that it replaces holds here.
    """

    limit: Limit
    period: Period
    counter: Counter
    allowed: NanoUSD
    left: NanoUSD
    free: NanoUSD
    had_its_turn: bool = False


class Applicant(msgspec.Struct, frozen=True, gc=False):
    """One attempt that asks to be let in, and all about it that does not move. came: when it began to ask."""

    ask: Reserve
    path: Path
    size: Size
    came: Micros


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """Let in: what goes into the ledger, and the answer once it is there."""

    held: Held
    granted: Granted


class Lacking(msgspec.Struct, frozen=True, gc=False):
    """Not now. budgets: at which there is no room, or somebody is before it."""

    budget_ids: tuple[str, ...]
    queue_seconds: int


class Turns(Protocol):
    """What is known of others that want the same money."""

    def is_before(self, budget_id: str, rid: str) -> bool:
        """Whether somebody has to be served there before this one."""

    def beyond(self, budget_id: str, now: Micros) -> NanoUSD:
        """What streams that have just begun there may still ask for beyond their holds."""


def known(state: State, rules: Rules, ask: Reserve, now: Micros) -> Granted | Denied | None:
    """The answer to a rid that was decided before; None for a new one."""
    if hold := state.holds.get(ask.rid):
        return _granted(state, rules, hold, now)
    if ask.rid in state.closings or ask.rid in state.tombstones:
        return no_budget(state, "too_late")
    return None


def weigh(state: State, rules: Rules, ask: Reserve, now: Micros) -> Applicant | Denied:
    """Which budgets it concerns, and what it could cost."""
    path = rules.catalogue.path(ask.principal.key, ask.provider, ask.session)
    if path is None or 0 < path.key.revoked_at <= now:
        return no_budget(state, "unknown")
    if path.matching:
        path = path.narrowed(Facts(ask.model, path.provider, ask.credential, ask.operation, ask.principal.tags))
    return Applicant(ask, path, rules.tariff.size(ask, path, state.learned, now), now - ask.waited_ms * 1_000)


def judge(
    state: State, rules: Rules, applicant: Applicant, now: Micros, turns: Turns | None
) -> Admitted | Denied | Lacking:
    """Hold what it had best have, or what there is where it can never have that, or say why not; see ledger.md, section 1.

    turns None: it can wait no longer, so it takes what there is now, or is refused as busy.
    """
    ask, path, size = applicant.ask, applicant.path, applicant.size
    rates = rules.catalogue.rates.on(path.key, ask.model)
    if rates and (limited := rate_limits.refusal(state, rates, ask, path.contact, now)):
        return limited
    rooms = rooms_of(state, path, now)
    hard = [room for room in rooms if room.limit.hard]
    if replaced := state.holds.get(ask.replaces_rid) if ask.replaces_rid else None:
        hard = [_with_replaced(room, replaced) for room in hard]
    if hard and (refusal := _refusal(state, applicant, hard, now)):
        return refusal
    enough = size.want_nano_usd
    if turns is None or any(room.left < enough for room in hard):
        enough = size.need_nano_usd
    lacking = [room for room in hard if room.free < enough or _has_to_wait(room, applicant, turns, now)]
    if lacking and turns is None:
        fullest = min(lacking, key=lambda room: room.free)
        return _denied(state, path, fullest, "busy", size, enough, now, spread(ask.rid))
    if lacking:
        return Lacking(tuple(r.limit.id for r in lacking), min(r.limit.rule.queue_seconds for r in lacking))
    held = _held(applicant, rooms, hard, rules.tariff.book.version, now)
    if rates:
        held = rate_limits.charged(held, rates, ask)
    return Admitted(held, _first_granted(state, held, rooms, hard))


def _has_to_wait(room: Room, applicant: Applicant, turns: Turns | None, now: Micros) -> bool:
    """Though there is room: for whose turn it is before, or until those that have just begun show what they are."""
    if turns is None or room.had_its_turn:
        return False
    if turns.is_before(room.limit.id, applicant.ask.rid):
        return True
    if not applicant.size.beyond_nano_usd:
        return False
    others = turns.beyond(room.limit.id, now)
    return others > 0 and others + applicant.size.beyond_nano_usd > room.left


def _first_granted(state: State, held: Held, rooms: Sequence[Room], hard: Sequence[Room]) -> Granted:
    return Granted(
        held_input_tokens=held.input_tokens,
        held_output_tokens=held.output_tokens,
        held_nano_usd=held.nano_usd,
        charges=held.charges,
        at_cap=held.at_cap,
        remaining_nano_usd=min((room.free - held.nano_usd for room in hard), default=0),
        standings=standings_of(rooms),
        admitted_at=held.admitted_at,
        owner_epoch=state.owner_epoch,
        limited_by=held.limited_by,
        held_input_nano_usd=held.input_nano_usd,
    )


def _room(state: State, limit: Limit, now: Micros) -> Room:
    period, counter = limit.now(state, now)
    allowance = limit.allowance(state, period, now)
    left = allowance.nano_usd - counter.spent(limit.basis)
    return Room(limit, period, counter, allowance.nano_usd, left, left - counter.held_nano_usd - allowance.tied)


def rooms_of(state: State, path: Path, now: Micros) -> list[Room]:
    """How every budget of the path stands."""
    return [_room(state, limit, now) for limit in path.limits]


def _with_replaced(room: Room, replaced: Hold) -> Room:
    """A fallback takes over the money of the attempt before it, where both are booked on the same budget."""
    if Charge(budget_id=room.limit.id, period_id=room.period.id) not in replaced.held.charges:
        return room
    free = room.free + replaced.nano_usd - kept_of_replaced(replaced)
    return msgspec.structs.replace(room, free=free, had_its_turn=True)


def _refusal(state: State, applicant: Applicant, hard: Sequence[Room], now: Micros) -> Denied | None:
    """The first reason against it that waiting does not change. Only hard budgets decide."""
    path, size = applicant.path, applicant.size
    if size.rates.unpriced and path.provider.unpriced == "deny":
        return _denied(state, path, hard[0], "unpriced", size, 0, now)
    if room := _cut_before(state, applicant.ask, hard, now):
        return _denied(state, path, room, "spent", size, size.need_nano_usd, now)
    poorest = min(hard, key=lambda room: room.left)
    if size.need_nano_usd > poorest.left:
        reason = "unboundable" if size.unboundable and poorest.left > 0 else "spent"
        return _denied(state, path, poorest, reason, size, size.need_nano_usd, now)
    return None


def _cut_before(state: State, ask: Reserve, hard: Sequence[Room], now: Micros) -> Room | None:
    """The budget at which this conversation was cut a moment ago."""
    if not state.marks:
        return None
    mark = state.marks.get(mark_key(ask.principal.key, ask.session, ask.agent, ask.body_digest))
    if mark is None or mark.until <= now:
        return None
    return next((room for room in hard if room.limit.id == mark.budget_id), None)


def _held(applicant: Applicant, rooms: Sequence[Room], hard: Sequence[Room], price_version: str, now: Micros) -> Held:
    """All that it had best hold, or what the fullest of the hard budgets has."""
    ask, path, size = applicant.ask, applicant.path, applicant.size
    fullest = min(hard, key=lambda room: room.free, default=None)
    output_tokens = size.output_within(fullest.free) if fullest else size.output_tokens
    return Held(
        rid=ask.rid,
        request_id=ask.request_id,
        attempt=ask.attempt,
        edge=ask.edge,
        epoch=ask.epoch,
        config_rev=ask.config_rev,
        principal=attributed(ask.principal, path.principal),
        charges=tuple(Charge(budget_id=room.limit.id, period_id=room.period.id) for room in rooms),
        provider=ask.provider,
        model=ask.model,
        nano_usd=size.money(output_tokens),
        input_nano_usd=size.input_nano_usd,
        input_tokens=size.input_tokens,
        output_tokens=output_tokens,
        stream=ask.stream,
        at_cap=at_cap_of(room.limit for room in rooms),
        admitted_at=now,
        session=ask.session,
        agent=ask.agent,
        body_digest=ask.body_digest,
        replaces_rid=ask.replaces_rid,
        price_version=price_version,
        unboundable=size.unboundable,
        limited_by=fullest.limit.id if fullest and output_tokens < size.max_tokens else "",
        max_tokens=size.max_tokens,
        text_bytes=size.text_bytes,
    )


def attributed(sent: Principal, known: Principal) -> Principal:
    """As the edge sent it, tags of the request included; an edge behind CONFIG may name a team the key has left."""
    uids = (sent.org, sent.customer, sent.team, sent.provider_config)
    if uids == (known.org, known.customer, known.team, known.provider_config):
        return sent
    return msgspec.structs.replace(known, project=sent.project, tags=sent.tags)


def at_cap_of(limits: Iterable[Limit]) -> str:
    return "cut" if any(limit.hard and limit.rule.at_cap == "cut" for limit in limits) else "finish"


def _granted(state: State, rules: Rules, hold: Hold, now: Micros) -> Granted:
    """The same answer again; only the standings may have moved."""
    held = hold.held
    found = [(rules.catalogue.limit(charge.budget_id), charge) for charge in held.charges]
    known = [(limit, limit.calendar.at(held.admitted_at), charge) for limit, charge in found if limit]
    booked = [
        (limit, period, state.counter(charge.budget_id, charge.period_id), limit.allowance(state, period, now).nano_usd)
        for limit, period, charge in known
    ]
    free = (limit.room(state, charge, held.admitted_at, now)[1] for limit, _, charge in known if limit.hard)
    return Granted(
        held_input_tokens=held.input_tokens,
        held_output_tokens=held.output_tokens,
        held_nano_usd=held.nano_usd,
        charges=held.charges,
        at_cap=held.at_cap,
        remaining_nano_usd=max(0, min(free, default=0)),
        standings=standings(booked),
        admitted_at=held.admitted_at,
        owner_epoch=state.owner_epoch,
        limited_by=held.limited_by,
        held_input_nano_usd=held.input_nano_usd,
    )


def standings_of(rooms: Iterable[Room]) -> tuple[Standing, ...]:
    return standings((room.limit, room.period, room.counter, room.allowed) for room in rooms)


def _denied(
    state: State, path: Path, room: Room, reason: str, size: Size, need: NanoUSD, now: Micros, retry_after_s: int = 0
) -> Denied:
    refusal = spent_refusal(state, room.limit, now, path.contact)
    return msgspec.structs.replace(
        refusal,
        reason=reason,
        need_nano_usd=need,
        input_bound=size.input_tokens,
        retry_after_s=retry_after_s or refusal.retry_after_s,
    )
