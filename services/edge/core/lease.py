"""Money that budget has lent to this edge: what it admits by itself, when it asks for more, when it gives back.

Pure: clocks, ids and answers are handed in. What is drawn is told to the owner afterwards, and only then, and when nothing
more will be drawn, what is left is returned: so the owner never frees money that an attempt of ours may burn.
"""

from collections.abc import Hashable, Iterator

import msgspec

from shared.contracts.budget import Granted, Reserve
from shared.contracts.leases import Draw, Drawn, LeaseAnswered, LeaseAsked, Terms
from shared.contracts.message import Micros, NanoUSD
from shared.rates import HoldRates
from shared.rates.book import Limits
from shared.rates.size import input_bound

SIZED = frozenset(("text_bytes", "image", "page", "input_tokens"))
"""Meters of a body that an edge can size by itself; any other is for the owner."""
_SECOND = 1_000_000
IDLE_MICROS = 10 * _SECOND  # a lease that nobody draws on for so long goes back
WINDOW_MICROS = 15 * _SECOND  # a lease is asked for what the last one to two of these have seen
REFUSED_MICROS = 5 * _SECOND
UNANSWERED_MICROS = 1 * _SECOND
WORTH_ASKING = 2  # attempts of a kind: a single one needs no lease
MOST_ATTEMPTS = 1_000
MOST_TOLD = 32  # in one message
MOST_DRAWN = 5_000  # attempts on one lease: who moves it to another shard takes along what each of them was
MOST_KINDS = 4_096  # clients choose models
_NO_LIMITS = Limits(0, 0)  # only what cannot be sized here asks for the model's

Kind = tuple[Hashable, ...]


def kind_of(ask: Reserve) -> Kind:
    """Attempts of one kind are booked on the same budgets and priced alike."""
    who = ask.principal
    tags = frozenset(who.tags.items())
    path = (who.org, who.customer, who.team, who.key, who.provider_config, tags)
    return (*path, ask.provider, ask.credential, ask.model, ask.operation, ask.speed, ask.geo, ask.cache_ttl)


def can_be_sized(ask: Reserve) -> bool:
    return ask.max_tokens > 0 and all(bound.meter in SIZED for bound in ask.bounds)


class Lease(msgspec.Struct, gc=False):
    """left: to be drawn, by our books; never more than the owner's. untold: attempts that it does not know of yet, by rid."""

    id: str
    kind: Kind
    config_rev: int
    owner_epoch: int
    terms: Terms
    left: NanoUSD
    drawn_at: Micros
    drawn: int = 0
    untold: dict[str, Draw] = {}


class _Demand(msgspec.Struct, gc=False):
    """Attempts of one kind in this window and in the one before it. asking: a question stands open."""

    since: Micros
    count: int = 0
    before: int = 0
    asking: bool = False
    not_before: Micros = 0

    def seen(self, now: Micros) -> None:
        passed = (now - self.since) // WINDOW_MICROS
        if passed > 0:
            self.before = self.count if passed == 1 else 0
            self.count = 0
            self.since += passed * WINDOW_MICROS
        self.count += 1

    @property
    def attempts(self) -> int:
        return min(MOST_ATTEMPTS, self.count + self.before)


class Purse:
    """All leases of one edge worker, in this life of it."""

    def __init__(self) -> None:
        self._open: dict[Kind, Lease] = {}
        self._closed: dict[str, Lease] = {}  # not to be drawn on; returned once all is told
        self._given_up: dict[str, None] = {}  # asked for in vain: the owner may have lent it all the same
        self._demands: dict[Kind, _Demand] = {}
        self._named: tuple[Reserve, Kind] | None = None
        self.shut = False

    def __bool__(self) -> bool:
        """Whether the owner is still to hear of anything."""
        return bool(self._open or self._closed or self._given_up)

    @property
    def nano_usd(self) -> NanoUSD:
        return sum(lease.left for lease in self._open.values())

    # Attempts.

    def draw(self, ask: Reserve, now: Micros) -> Granted | None:
        """Admit this attempt at its bound; None when that is for the owner."""
        kind = self._kind(ask)
        lease = self._open.get(kind)
        if lease is None or not can_be_sized(ask):
            return None
        if ask.config_rev < lease.config_rev:
            return None  # it began before the organisation changed
        if ask.config_rev > lease.config_rev or now >= lease.terms.until or lease.drawn >= MOST_DRAWN:
            self._close(lease)
            return None
        draw = _sized(lease.terms, ask, now)
        if draw.nano_usd > lease.left:
            return None
        lease.left -= draw.nano_usd
        lease.drawn += 1
        lease.drawn_at = now
        lease.untold[ask.rid] = draw
        return _granted(lease, draw)

    def wish(self, ask: Reserve, now: Micros, lease_id: str) -> LeaseAsked | None:
        """To be asked for now that this attempt is admitted, by us or by the owner."""
        if self.shut or not can_be_sized(ask):
            return None
        kind = self._kind(ask)
        if len(self._demands) > MOST_KINDS:
            self._demands = {each: demand for each, demand in self._demands.items() if demand.asking}
        demand = self._demands.setdefault(kind, _Demand(now))
        demand.seen(now)
        lease = self._open.get(kind)
        enough = lease is not None and lease.left * 2 >= lease.terms.nano_usd
        if enough or demand.asking or now < demand.not_before or demand.attempts < WORTH_ASKING:
            return None
        demand.asking = True
        return LeaseAsked(lease=lease_id, like=ask, attempts=demand.attempts)

    # What the owner says.

    def answered(self, asked: LeaseAsked, answer: LeaseAnswered | None, now: Micros) -> None:
        """answer: None when there was none in time."""
        kind = kind_of(asked.like)
        demand = self._demands.setdefault(kind, _Demand(now))
        demand.asking = False
        if answer is None:
            self._given_up[asked.lease] = None
            demand.not_before = now + UNANSWERED_MICROS
        elif answer.terms is None:
            demand.not_before = now + REFUSED_MICROS
        else:
            if before := self._open.get(kind):
                self._close(before)
            rev, terms = asked.like.config_rev, answer.terms
            lease = Lease(asked.lease, kind, rev, answer.owner_epoch, terms, terms.nano_usd, now)
            self._open[kind] = lease
            if self.shut:
                self._close(lease)

    def to_tell(self) -> Drawn | None:
        """Attempts that the owner does not know of, of one lease."""
        for lease in self._all():
            if lease.untold:
                draws = list(lease.untold.values())[:MOST_TOLD]
                return Drawn(lease=lease.id, draws=tuple(draws))
        return None

    def is_untold(self, rid: str) -> bool:
        """Whether the owner does not know yet of this attempt, which was admitted on a lease."""
        return any(rid in lease.untold for lease in self._all())

    def told(self, drawn: Drawn) -> None:
        """The owner has it durably."""
        for lease in self._all():
            if lease.id == drawn.lease:
                for draw in drawn.draws:
                    lease.untold.pop(draw.ask.rid, None)

    # Giving back.

    def tidy(self, now: Micros, config_rev: int, reachable: bool) -> None:
        """Once a second. What nobody uses is given back, but not while it may be all that there is to go on with."""
        for lease in list(self._open.values()):
            idle = reachable and now - lease.drawn_at >= IDLE_MICROS
            if idle or now >= lease.terms.until or lease.config_rev != config_rev:
                self._close(lease)

    def shut_down(self) -> None:
        """Nothing more is drawn or asked for."""
        self.shut = True
        for lease in list(self._open.values()):
            self._close(lease)

    def drop(self, key: str) -> None:
        """Of this key the owner decides every attempt from here on: one of its conversations was cut."""
        for lease in list(self._open.values()):
            if key in lease.kind:
                self._close(lease)

    def to_return(self) -> str:
        """A lease of which all is told; empty when there is none."""
        told = (lease.id for lease in self._closed.values() if not lease.untold)
        return next(told, "") or next(iter(self._given_up), "")

    def returned(self, lease_id: str) -> None:
        self._closed.pop(lease_id, None)
        self._given_up.pop(lease_id, None)

    def _kind(self, ask: Reserve) -> Kind:
        """Wanted twice for each attempt, to draw and to wish."""
        if self._named is None or self._named[0] is not ask:
            self._named = (ask, kind_of(ask))
        return self._named[1]

    def _close(self, lease: Lease) -> None:
        if self._open.get(lease.kind) is lease:
            del self._open[lease.kind]
        self._closed[lease.id] = lease

    def _all(self) -> Iterator[Lease]:
        yield from self._closed.values()
        yield from self._open.values()


def _sized(terms: Terms, ask: Reserve, now: Micros) -> Draw:
    rates = HoldRates(
        input_pico_usd=terms.input_pico_usd, output_pico_usd=terms.output_pico_usd, search_pico_usd=0, unpriced=False
    )
    input_tokens, _ = input_bound(ask, _NO_LIMITS, terms.tokens_per_100_bytes)
    hold = rates.hold(input_tokens, ask.max_tokens)
    return Draw(
        ask=ask,
        admitted_at=now,
        nano_usd=hold.nano_usd,
        input_nano_usd=hold.input_nano_usd,
        input_tokens=input_tokens,
        output_tokens=ask.max_tokens,
    )


def _granted(lease: Lease, draw: Draw) -> Granted:
    return Granted(
        held_input_tokens=draw.input_tokens,
        held_output_tokens=draw.output_tokens,
        held_nano_usd=draw.nano_usd,
        charges=lease.terms.charges,
        at_cap=lease.terms.at_cap,
        remaining_nano_usd=lease.left,
        standings=lease.terms.standings,
        admitted_at=draw.admitted_at,
        owner_epoch=lease.owner_epoch,
        held_input_nano_usd=draw.input_nano_usd,
        lease=lease.id,
    )
