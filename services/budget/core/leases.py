"""Lending money to an edge far from the cap, so that it admits attempts by itself; see docs/ledger.md, "Leases".

What is lent is held on every budget of the path until the edge tells what became of it, so no cap can be passed. Each
attempt on a lease becomes an ordinary hold, paid from the lease; which of its messages comes first does not matter.
"""

from collections.abc import Iterator, Sequence

import msgspec

from services.budget.core import turns
from services.budget.core.admission import Room, at_cap_of, attributed, rooms_of, standings_of
from services.budget.core.group import Group
from services.budget.core.limits import Facts, Path
from services.budget.core.periods import NEVER
from services.budget.core.state import Lease
from services.budget.core.tariff import Advance, text_alone
from shared.contracts.attribution import Charge
from shared.contracts.budget import Reserve
from shared.contracts.leases import Draw, Drawn, LeaseAsked, Terms
from shared.contracts.ledger import Held, Leased, Returned
from shared.contracts.message import Micros, NanoUSD
from shared.rates.size import input_bound


class Policy(msgspec.Struct, frozen=True):
    """share: of what is free in the poorest budget, for one lease; lent: for all leases together; kept: of what may be
    spent, that stays free beside them. seconds: how long a lease may be drawn on; not lent for less than least_seconds.
    least_attempts: where there is not enough for so many, or for all that are expected, a lease costs more than it saves.
    """

    share_percent: int = 2
    lent_percent: int = 10
    kept_percent: int = 20
    seconds: int = 300
    least_seconds: int = 5
    least_attempts: int = 4


class Lend(msgspec.Struct, frozen=True):
    """An edge asks for a lease."""

    ask: LeaseAsked
    policy: Policy


class GiveBack(msgspec.Struct, frozen=True):
    """Nobody will draw on this lease any more, and all that was drawn is known."""

    lease: str


class Lent(msgspec.Struct, frozen=True):
    """terms: None when nothing is lent."""

    terms: Terms | None


NOTHING = Lent(None)


def lend(group: Group, command: Lend) -> Lent:
    """Asked again with the same id it answers the same."""
    state, ask = group.state, command.ask
    if known := state.leases.get(ask.lease):
        return Lent(known.leased.terms)
    like = ask.like
    path = None if ask.lease in state.tombstones else _path(group, like)
    if path is None:
        return NOTHING
    rooms = rooms_of(state, path, group.now)
    if any(group.line.is_waited_at(room.limit.id) for room in rooms):
        return NOTHING  # its money goes to those in line
    advance = group.rules.tariff.in_advance(like, path, state.learned, group.now)
    until = min(group.now + command.policy.seconds * 1_000_000, advance.until, *_turns(rooms, group.now))
    bound = _bound(group, path, like, advance)
    amount = min(bound * ask.attempts, _most(rooms, command.policy))
    too_short = until - group.now < command.policy.least_seconds * 1_000_000
    least = bound * min(ask.attempts, command.policy.least_attempts)
    if advance.rates.unpriced or too_short or not 0 < least <= amount:
        return NOTHING
    terms = Terms(
        nano_usd=amount,
        until=until,
        charges=tuple(Charge(budget_id=room.limit.id, period_id=room.period.id) for room in rooms),
        at_cap=at_cap_of(path.limits),
        input_pico_usd=advance.rates.input_pico_usd,
        output_pico_usd=advance.rates.output_pico_usd,
        tokens_per_100_bytes=advance.tokens_per_100_bytes,
        standings=standings_of(rooms),
        price_version=group.rules.tariff.book.version,
    )
    group.apply(
        Leased(
            lease=ask.lease,
            edge=like.edge,
            epoch=like.epoch,
            principal=attributed(like.principal, path.principal),
            provider=like.provider,
            model=like.model,
            terms=terms,
            at=group.now,
        )
    )
    return Lent(terms)


def draw(group: Group, drawn: Drawn) -> None:
    """Attempts become holds. What is closed already was paid from the lease by its entry, what is withdrawn by nobody."""
    state, lease = group.state, group.state.leases.get(drawn.lease)
    for each in drawn.draws:
        rid = each.ask.rid
        finished = rid in state.closings or rid in state.tombstones
        if lease is None or finished or rid in lease.told or each.nano_usd > lease.nano_usd:
            continue  # without its lease an attempt cannot be held; its entry books it all the same
        group.apply(_held(lease, drawn.lease, each))
        if each.ask.replaces_rid:  # what that one held may have come free
            turns.serve(group, sorted(charge.budget_id for charge in lease.leased.terms.charges))


def give_back(group: Group, command: GiveBack) -> None:
    """Leaves a tombstone, since the question for it may still be on its way."""
    lease = group.state.leases.get(command.lease)
    if lease is None and command.lease in group.state.tombstones:
        return
    group.apply(Returned(lease=command.lease, at=group.now))
    if lease:
        turns.serve(group, sorted(charge.budget_id for charge in lease.leased.terms.charges))


def _path(group: Group, like: Reserve) -> Path | None:
    """The budgets of attempts like this one, where an edge can know all that decides over them."""
    catalogue = group.rules.catalogue
    if like.config_rev != catalogue.config_rev:
        return None  # one of us is behind
    path = catalogue.path(like.principal.key, like.provider)
    if path is None or path.key.revoked_at or path.key.session_budget_nano_usd:
        return None
    if catalogue.rates.on(path.key, like.model):
        return None  # only the owner counts over all edges
    if any(mark.until > group.now and key == path.key.uid for (key, _, _), mark in group.state.marks.items()):
        return None  # a conversation was cut, and only we know which
    if path.matching:
        path = path.narrowed(Facts(like.model, path.provider, like.credential, like.operation, like.principal.tags))
    return path if path.hard else None


def _turns(rooms: Sequence[Room], now: Micros) -> Iterator[Micros]:
    """When there may be less: at the end of a period, or of a grant."""
    for room in rooms:
        if room.period.end != NEVER:
            yield room.period.end
        if allowances := room.limit.allowances:
            yield from (at for at in allowances.turns() if at > now)


def _bound(group: Group, path: Path, like: Reserve, advance: Advance) -> NanoUSD:
    """Of one attempt, as the edge will size it; 0 where it cannot."""
    limits = group.rules.tariff.book.limits(path.provider.kind, like.model)
    input_tokens, unboundable = input_bound(like, limits, advance.tokens_per_100_bytes)
    if unboundable or not like.max_tokens:
        return 0
    return advance.rates.hold(input_tokens, like.max_tokens).nano_usd


def _most(rooms: Sequence[Room], policy: Policy) -> NanoUSD:
    """What its hard budgets can spare, so that nobody else comes to feel it."""
    return min(_spare(room, policy) for room in rooms if room.limit.hard)


def _spare(room: Room, policy: Policy) -> NanoUSD:
    lent = room.counter.lent_nano_usd
    return min(
        room.free * policy.share_percent // 100,
        (room.free + lent) * policy.lent_percent // 100 - lent,
        room.free - room.allowed * policy.kept_percent // 100,
    )


def _held(lease: Lease, lease_id: str, draw: Draw) -> Held:
    """Booked where the lease is, by the time of the grant."""
    ask, leased = draw.ask, lease.leased
    return Held(
        rid=ask.rid,
        request_id=ask.request_id,
        attempt=ask.attempt,
        edge=ask.edge,
        epoch=ask.epoch,
        config_rev=ask.config_rev,
        principal=attributed(ask.principal, leased.principal),
        charges=leased.terms.charges,
        provider=ask.provider,
        model=ask.model,
        nano_usd=draw.nano_usd,
        input_nano_usd=draw.input_nano_usd,
        input_tokens=draw.input_tokens,
        output_tokens=draw.output_tokens,
        stream=ask.stream,
        at_cap=leased.terms.at_cap,
        admitted_at=min(max(draw.admitted_at, leased.at), leased.terms.until - 1),
        session=ask.session,
        agent=ask.agent,
        body_digest=ask.body_digest,
        replaces_rid=ask.replaces_rid,
        price_version=leased.terms.price_version,
        max_tokens=draw.output_tokens,
        text_bytes=text_alone(ask),
        lease=lease_id,
    )
