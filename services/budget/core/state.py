"""What the owner knows: nothing but the fold of its ledger. Live decisions and replay go through the same `apply`."""

import msgspec

from services.budget.core import luggage
from services.budget.core.accounts import EMPTY, Counter, CounterKey, Hold, Lease, Mark
from services.budget.core.closings import SETTLED, Closing, Closings
from services.budget.core.learned import Learned
from services.budget.core.luggage import Stay
from services.budget.core.rate_windows import RateCounts, tokens_of
from shared.contracts.attribution import Charge
from shared.contracts.edge import UsageRecorded
from shared.contracts.ledger import (
    Arrived,
    Commit,
    Decided,
    Departed,
    Entry,
    EpochBegan,
    Extended,
    HandedOver,
    Held,
    Lapsed,
    Leased,
    LedgerEvent,
    LimitsApplied,
    PassedOn,
    Returned,
    Spent,
    TruedUp,
    Withdrawn,
)
from shared.contracts.message import Micros, NanoUSD
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position

TOMBSTONE_MICROS = 3_600_000_000
"""How long a withdrawn rid is refused; an edge stops asking after minutes."""
__all__ = ["EMPTY", "Counter", "CounterKey", "Hold", "Lease", "Mark", "State", "kept_of_replaced", "mark_key"]


class State(msgspec.Struct):
    """Everything in it is kept in snapshots. What a release adds or changes here makes it replay the whole ledger once."""

    owner_epoch: int = 0
    config_rev: int = 0
    version: int = 0
    priced: Position = Position()
    counters: dict[CounterKey, Counter] = {}
    holds: dict[str, Hold] = {}
    closings: Closings = msgspec.field(default_factory=Closings)
    tombstones: dict[str, Micros] = {}
    decisions: dict[str, Decided] = {}
    marks: dict[tuple[str, str, str], Mark] = {}
    learned: Learned = msgspec.field(default_factory=Learned)
    rates: RateCounts = msgspec.field(default_factory=RateCounts)
    lapsed: dict[str, NanoUSD] = {}  # grants that ended early -> what was used of them
    leases: dict[str, Lease] = {}
    stays: dict[str, Stay] = {}  # of organisations that moved
    moved: dict[str, str] = {}  # rids in flight and leases when their organisation left -> organisation

    def counter(self, budget_id: str, period_id: str) -> Counter:
        """For reading: an untouched budget is empty."""
        return self.counters.get((budget_id, period_id), EMPTY)

    def fold(self, commit: Commit) -> None:
        """Apply one record of the ledger."""
        for event in commit.events:
            self.apply(event)
        self.priced = commit.priced

    def apply(self, event: LedgerEvent) -> None:
        """Pure: the next state depends on nothing but this one and the event."""
        match event:
            case Held():
                self._held(event)
            case Entry():
                self._entry(event)
            case TruedUp():
                self._trued_up(event)
            case Extended():
                self._extended(event)
            case Withdrawn():
                self._withdrawn(event)
            case Spent():
                self._cut(event)
            case Leased():
                self._leased(event)
            case Returned():
                self._returned(event)
            case _:
                self._of_the_shard(event)

    def _of_the_shard(self, event: LedgerEvent) -> None:
        """What is about no single attempt or lease."""
        match event:
            case Decided():
                self.version = event.version
                self.decisions[event.scope] = event
            case LimitsApplied():
                self.config_rev = event.config_rev
                self.marks.clear()  # a changed limit gives a cut conversation another chance
            case EpochBegan():
                self.owner_epoch = event.owner_epoch
            case Lapsed():
                self.lapsed[event.grant] = event.used_nano_usd
            case Departed() | Arrived() | HandedOver() | PassedOn():
                luggage.apply(self, event)

    def _held(self, event: Held) -> None:
        old = self.holds.get(event.replaces_rid)
        if event.rates or old:
            self.rates.held(event, old.held if old else None)
        if old:
            self._hold_more(old, kept_of_replaced(old) - old.nano_usd)
            old.input_nano_usd = old.nano_usd
        if event.lease:
            self._pay(self.leases[event.lease], event.rid, event.nano_usd)
        hold = Hold(event, 0, event.input_nano_usd, event.output_tokens)
        self.holds[event.rid] = hold
        self._hold_more(hold, event.nano_usd)

    def _hold_more(self, hold: Hold, nano_usd: NanoUSD) -> None:
        """nano_usd: signed."""
        hold.nano_usd += nano_usd
        for charge in hold.held.charges:
            self._writable(charge).held_nano_usd += nano_usd

    def _writable(self, charge: Charge) -> Counter:
        key = (charge.budget_id, charge.period_id)
        counter = self.counters.get(key)
        if counter is None:
            counter = self.counters[key] = Counter()
        return counter

    def _entry(self, event: Entry) -> None:
        priced, rid = event.usage, event.usage.usage.rid
        if hold := self.holds.pop(rid, None):
            self._hold_more(hold, -hold.nano_usd)
            self.learned.closed(hold.held, event)
            if hold.held.rates:
                self.rates.ended_with(hold.held, tokens_of(event), event.booked_at)
        elif set_aside := self.set_aside(priced.usage):
            self._pay(self.leases[priced.usage.lease], rid, set_aside)
        for charge in event.charges:
            counter = self._writable(charge)
            counter.list_nano_usd += priced.list_nano_usd
            counter.cost_nano_usd += priced.cost_nano_usd
            counter.charge_nano_usd += priced.charge_nano_usd
        self.tombstones.pop(rid, None)
        self.closings[rid] = _closing(event, priced, self.closings.get(rid))

    def _trued_up(self, event: TruedUp) -> None:
        hold = self.holds[event.rid]
        # more input than its bound is taken from the output part: the whole stays as it is
        self._hold_more(hold, -min(hold.nano_usd, max(0, hold.input_nano_usd - event.input_nano_usd)))
        hold.input_nano_usd = event.input_nano_usd
        hold.trued_up = True

    def _extended(self, event: Extended) -> None:
        hold = self.holds[event.rid]
        self._hold_more(hold, event.nano_usd)
        hold.output_tokens += event.output_tokens
        hold.extensions[event.n] = event.output_tokens

    def _withdrawn(self, event: Withdrawn) -> None:
        if hold := self.holds.pop(event.rid, None):
            self._hold_more(hold, -hold.nano_usd)
            if hold.held.rates:
                self.rates.ended_with(hold.held, 0, event.at)
        self._bury(event.rid, event.at)

    def _bury(self, name: str, at: Micros) -> None:
        while self.tombstones and next(iter(self.tombstones.values())) < at - TOMBSTONE_MICROS:
            del self.tombstones[next(iter(self.tombstones))]
        self.tombstones[name] = at

    def set_aside(self, usage: UsageRecorded) -> NanoUSD:
        """What its lease still has for an attempt that ends before the edge has told of its beginning."""
        lease = self.leases.get(usage.lease)
        if lease is None or usage.rid in lease.told:
            return 0
        return min(usage.held_nano_usd, lease.nano_usd)

    def _leased(self, event: Leased) -> None:
        lease = self.leases[event.lease] = Lease(event, 0)
        self._lend(lease, event.terms.nano_usd)

    def _pay(self, lease: Lease, rid: str, nano_usd: NanoUSD) -> None:
        """Once for each attempt, whatever is told of it first."""
        lease.told.add(rid)
        self._lend(lease, -nano_usd)

    def _lend(self, lease: Lease, nano_usd: NanoUSD) -> None:
        """nano_usd: signed."""
        lease.nano_usd += nano_usd
        for charge in lease.leased.terms.charges:
            counter = self._writable(charge)
            counter.held_nano_usd += nano_usd
            counter.lent_nano_usd += nano_usd

    def _returned(self, event: Returned) -> None:
        if lease := self.leases.pop(event.lease, None):
            self._lend(lease, -lease.nano_usd)
        self._bury(event.lease, event.at)

    def _cut(self, event: Spent) -> None:
        while self.marks and next(iter(self.marks.values())).until < event.until - TOMBSTONE_MICROS:
            del self.marks[next(iter(self.marks))]
        self.marks[mark_key(event.key, event.session, event.agent, event.body_digest)] = Mark(
            event.budget_id, event.until
        )


def kept_of_replaced(hold: Hold) -> NanoUSD:
    """What a replaced attempt keeps: its input, once the provider has begun an answer and so bills it; else nothing."""
    return min(hold.nano_usd, hold.input_nano_usd) if hold.trued_up else 0


def mark_key(key: str, session: str, agent: str, body_digest: bytes) -> tuple[str, str, str]:
    """Who is refused after a cut: the conversation; without a session, the same body."""
    return (key, session, agent) if session else (key, "", body_digest.hex())


def _closing(event: Entry, priced: UsagePriced, before: Closing | None) -> Closing:
    """A correction's amounts and lines are differences, so the sum of all entries is what stands."""
    n = before.n + 1 if before else 0
    if priced.usage.kind == "settled":
        return Closing("settled", n) if n else SETTLED
    before = before or SETTLED
    return Closing(
        kind=priced.usage.kind,
        org=priced.usage.principal.org,
        n=n,
        charges=event.charges,
        admitted_at=event.admitted_at,
        list_nano_usd=before.list_nano_usd + priced.list_nano_usd,
        cost_nano_usd=before.cost_nano_usd + priced.cost_nano_usd,
        charge_nano_usd=before.charge_nano_usd + priced.charge_nano_usd,
        lines=before.lines + priced.lines,
    )
