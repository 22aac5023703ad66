"""An organisation's part of the state, taken out of one shard's and put into another's. Both are folds of events.

Whose a piece is, is told by the uids that the event names, so that replay does not depend on CONFIG. Rids that are settled
stay where they are: what comes of them again comes to the shard that settled them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from services.budget.core.accounts import Counter, CounterKey, Hold, Lease, Mark
from services.budget.core.closings import Closing
from services.budget.core.learned import Histogram
from services.budget.core.rate_windows import Asking, RateCounts, Window, measure_of
from shared.contracts.ledger import Arrived, Decided, Departed, HandedOver, PassedOn, Withdrawn
from shared.contracts.message import Micros, NanoUSD, Uid

if TYPE_CHECKING:
    from services.budget.core.state import State

K = TypeVar("K")
V = TypeVar("V")
Piece = tuple[str, Any, Any]  # field of Luggage, key, value


class Luggage(msgspec.Struct):
    """What goes with an organisation. Its fields stand in the order in which they are sent; a hold needs all before it.

    counters: without what is held and lent. windows: by length and limit. tombstones: of all, since nothing tells whose they are.
    """

    counters: dict[CounterKey, Counter] = {}
    lapsed: dict[str, NanoUSD] = {}
    output: dict[str, Histogram] = {}
    percent: dict[str, Histogram] = {}
    windows: dict[tuple[Micros, str], Window] = {}
    live: dict[str, dict[str, int]] = {}
    asking: dict[str, Asking] = {}
    ended: dict[str, Micros] = {}
    tokens: dict[str, int] = {}
    closings: dict[str, Closing] = {}
    tombstones: dict[str, Micros] = {}
    decisions: dict[str, Decided] = {}
    marks: dict[tuple[str, str, str], Mark] = {}
    leases: dict[str, Lease] = {}
    holds: dict[str, Hold] = {}


class Stay(msgspec.Struct):
    """How an organisation stands to this shard, once it has moved. shard: the other one. pieces: how many have come.

    phase: leaving, left (the other may have it), gone (the other has it); coming, here.
    """

    move: int
    phase: str
    shard: str
    pieces: int = 0
    luggage: Luggage = msgspec.field(default_factory=Luggage)


def apply(state: State, event: Departed | Arrived | HandedOver | PassedOn) -> None:
    match event:
        case Departed():
            _depart(state, event)
        case Arrived():
            _arrive(state, event)
        case HandedOver():
            _hand_over(state, event)
        case PassedOn():
            _passed_on(state, event)


def _depart(state: State, event: Departed) -> None:
    """Take what belongs to these uids out of the state."""
    stay = state.stays.get(event.org)
    if stay is None or stay.move != event.move:
        stay = state.stays[event.org] = Stay(event.move, "leaving", event.to)
        _take_attempts(state, event.org, stay.luggage)
    _take_of(state, frozenset(event.uids), stay.luggage)
    if event.whole:
        stay.phase = "left"


def _take_attempts(state: State, org: Uid, luggage: Luggage) -> None:
    """What is in flight and what may be corrected; from here on it is not held here."""
    for rid in [rid for rid, hold in state.holds.items() if hold.held.principal.org == org]:
        hold = luggage.holds[rid] = state.holds.pop(rid)
        state.moved[rid] = org
        for charge in hold.held.charges:
            state.counters[charge.budget_id, charge.period_id].held_nano_usd -= hold.nano_usd
        if hold.held.rates:
            _take_rates(state.rates, hold, luggage)
    for name in [name for name, lease in state.leases.items() if lease.leased.principal.org == org]:
        lease = luggage.leases[name] = state.leases.pop(name)
        state.moved[name] = org
        _lend(state, lease, -lease.nano_usd)
    for rid in [rid for rid, one in state.closings.others.items() if one.org == org and one.kind != "settled"]:
        luggage.closings[rid] = state.closings.others.pop(rid)
    luggage.tombstones = dict(state.tombstones)


def _take_rates(rates: RateCounts, hold: Hold, luggage: Luggage) -> None:
    rid, request_id = hold.held.rid, hold.held.request_id
    if rid in rates.tokens:
        luggage.tokens[rid] = rates.tokens.pop(rid)
    if request_id in rates.asking:
        luggage.asking[request_id] = rates.asking.pop(request_id)
    for rate in hold.held.rates:
        if measure_of(rate)[0] == "concurrent" and rate in rates.live:
            luggage.live[rate] = rates.live.pop(rate)


def _take_of(state: State, uids: Collection[Uid], luggage: Luggage) -> None:
    rates = state.rates
    _take(state.counters, luggage.counters, lambda key: _owner(key[0]) in uids)
    _take(state.decisions, luggage.decisions, lambda scope: _owner(scope) in uids)
    _take(state.marks, luggage.marks, lambda key: key[0] in uids)
    _take(state.lapsed, luggage.lapsed, lambda grant: grant in uids)
    for source, to in ((state.learned.output, luggage.output), (state.learned.percent, luggage.percent)):
        _take(source, to, lambda name: name.partition(" ")[0] in uids)
    for length, windows in rates.windows.items():
        for rate in [rate for rate in windows if _owner(rate) in uids]:
            luggage.windows[length, rate] = windows.pop(rate)
    _take(rates.asking, luggage.asking, lambda name: any(_owner(rate) in uids for rate in rates.asking[name].rates))
    _take(rates.ended, luggage.ended, lambda name: name in luggage.asking)


def _take(source: dict[K, V], to: dict[K, V], is_its: Callable[[K], bool]) -> None:
    for key in [key for key in source if is_its(key)]:
        to[key] = source.pop(key)


def _owner(name: str) -> Uid:
    """Of a budget, a scope or a rate limit: `scope:uid…`."""
    return name.split(":", 2)[1]


def _arrive(state: State, event: Arrived) -> None:
    """Put a part into the state. After the last one the organisation lives here."""
    stay = state.stays.get(event.org)
    if stay is None or stay.move != event.move:
        stay = state.stays[event.org] = Stay(event.move, "coming", event.source)
    luggage = unpack(event.data)
    _put(state, luggage)
    _put_rates(state.rates, luggage)
    for name, lease in luggage.leases.items():
        state.moved.pop(name, None)
        state.leases[name] = lease
        _lend(state, lease, lease.nano_usd)
    for rid, hold in luggage.holds.items():
        state.moved.pop(rid, None)
        state.holds[rid] = hold
        for charge in hold.held.charges:
            key = (charge.budget_id, charge.period_id)
            state.counters.setdefault(key, Counter()).held_nano_usd += hold.nano_usd
        if rid in state.tombstones:  # withdrawn while it was on its way
            state.apply(Withdrawn(rid=rid, at=state.tombstones[rid]))
    stay.pieces = event.after + event.pieces
    if event.whole:
        stay.phase = "here"


def _lend(state: State, lease: Lease, nano_usd: NanoUSD) -> None:
    """nano_usd: signed."""
    for charge in lease.leased.terms.charges:
        counter = state.counters.setdefault((charge.budget_id, charge.period_id), Counter())
        counter.held_nano_usd += nano_usd
        counter.lent_nano_usd += nano_usd


def _put(state: State, luggage: Luggage) -> None:
    for key, counter in luggage.counters.items():
        here = state.counters.setdefault(key, Counter())
        here.list_nano_usd, here.cost_nano_usd = counter.list_nano_usd, counter.cost_nano_usd
        here.charge_nano_usd = counter.charge_nano_usd
    state.lapsed |= luggage.lapsed
    state.learned.output |= luggage.output
    state.learned.percent |= luggage.percent
    for rid, closing in luggage.closings.items():
        known = state.closings.get(rid)
        if known is None or known.n < closing.n:
            state.closings[rid] = closing
    if luggage.tombstones:
        state.tombstones = _by_age(luggage.tombstones | state.tombstones)
    for scope, decided in luggage.decisions.items():
        state.version += 1  # versions of two shards do not compare
        state.decisions[scope] = msgspec.structs.replace(decided, version=state.version)
    if luggage.marks:
        marks = state.marks | luggage.marks
        state.marks = dict(sorted(marks.items(), key=lambda item: item[1].until))


def _put_rates(rates: RateCounts, luggage: Luggage) -> None:
    for (length, rate), window in luggage.windows.items():
        windows = rates.windows.setdefault(length, {})
        windows[rate] = window
        rates.windows[length] = dict(sorted(windows.items(), key=lambda item: item[1].last_at))
    rates.live |= luggage.live
    rates.asking |= luggage.asking
    rates.tokens |= luggage.tokens
    if luggage.ended:
        rates.ended = _by_age(rates.ended | luggage.ended)


def _by_age(times: dict[str, Micros]) -> dict[str, Micros]:
    return dict(sorted(times.items(), key=lambda item: item[1]))


def _hand_over(state: State, event: HandedOver) -> None:
    stay = state.stays[event.org]
    if stay.move == event.move and stay.phase == "left":
        stay.phase, stay.luggage = "gone", Luggage()


def _passed_on(state: State, event: PassedOn) -> None:
    """It is settled for good, and so it is should the organisation come back."""
    state.moved.pop(event.rid, None)
    state.closings[event.rid] = Closing("settled")


def pieces(luggage: Luggage) -> list[Piece]:
    """In an order that depends on nothing but what is in it."""
    fields = ((name, getattr(luggage, name)) for name in luggage.__struct_fields__)
    return [(name, key, values[key]) for name, values in fields for key in sorted(values)]


def part(found: list[Piece], after: int, most_bytes: int) -> tuple[bytes, int]:
    """The pieces after so many, as bytes, and how many they are. At least one, if there is one."""
    luggage, count, size = Luggage(), 0, 0
    for name, key, value in found[after:]:
        size += len(_encoder.encode((key, value)))
        if count and size > most_bytes:
            break
        getattr(luggage, name)[key] = value
        count += 1
    return _encoder.encode(luggage), count


def unpack(data: bytes) -> Luggage:
    return _decoder.decode(data)


def moving(stays: Mapping[str, Stay]) -> Iterator[Uid]:
    """Organisations whose move is not over as far as this shard can tell."""
    return (org for org, stay in stays.items() if stay.phase in ("leaving", "left", "coming"))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Luggage)
