"""What must be true: looked at as each record is stored, and once more when all has come to rest."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from services.budget.core.state import State
from shared.contracts.budget import Granted
from shared.contracts.edge import UsageRecorded
from shared.contracts.ledger import Commit, Decided, Entry, Extended, Held, Leased, LimitsApplied, Withdrawn
from shared.contracts.message import Decoder
from shared.contracts.streams import DEDUPLICATION_SECONDS
from tests.simulation import company
from tests.simulation.broker import Stored
from tests.simulation.clock import MICROS

if TYPE_CHECKING:
    from tests.simulation.owner import Owner
    from tests.simulation.world import World

RANK = {"void": 1, "recovered": 2, "settled": 3}
PRICES = {"input": company.INPUT_NANO_USD, "output": company.OUTPUT_NANO_USD}
_commit = Decoder(Commit)
_usage = Decoder(UsageRecorded)


class Oracle:
    """Keeps its own small books beside the core's state: entries by rid, and what each budget was charged."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.held: dict[str, Held] = {}
        self.withdrawn: dict[str, None] = {}
        self.entries: dict[str, list[Entry]] = defaultdict(list)
        self.charged: dict[tuple[str, str], int] = defaultdict(int)
        self.usage: dict[str, list[UsageRecorded]] = defaultdict(list)
        self.differences: dict[str, int] = {}
        self.limited: dict[str, list[Held]] = defaultdict(list)  # by client request
        self._first: dict[str, int] = {}
        self._state = State()
        self._digest = bytes(32)
        self._caps: dict[str, int] = {}
        self.leases: dict[str, Leased] = {}
        self._drawn: dict[str, int] = defaultdict(int)
        self._version = 0

    # As it is stored.

    def stored(self, stream: str, stored: Stored) -> None:
        if stream == "USAGE":
            self._usage(stored)
        elif stream == "LEDGER":
            self._ledger(stored)

    def _usage(self, stored: Stored) -> None:
        usage = _usage.decode(stored.data)
        name = f"{usage.rid}:{usage.kind}"
        first = self._first.setdefault(name, stored.at)
        if first != stored.at and stored.at - first < DEDUPLICATION_SECONDS * MICROS:
            self._world.fail(f"{name} is in USAGE twice")
        self.usage[usage.rid].append(usage)

    def _ledger(self, stored: Stored) -> None:
        commit = _commit.decode(stored.data)
        if commit.digest != self._digest:
            self._world.fail(f"ledger record {stored.seq} was not written after the one before it")
        self._digest = hashlib.sha256(stored.data).digest()
        for event in commit.events:
            before = {key: _used(self._state, key) for key in self._raised(event)}
            if isinstance(event, Entry):
                self._was_set_aside(event)
            self._state.apply(event)
            for key, used in before.items():
                self._under_cap(stored.seq, key, used)
            self._note(event)
            self._world.seen[_kind(event)] += 1
        self._state.priced = commit.priced

    def _raised(self, event: object) -> list[tuple[str, str]]:
        """The counters that this event may raise by holding."""
        if isinstance(event, Extended):
            event = self.held.get(event.rid)
        if isinstance(event, Leased):
            return [(c.budget_id, c.period_id) for c in event.terms.charges]
        return [(c.budget_id, c.period_id) for c in event.charges] if isinstance(event, Held) else []

    def _under_cap(self, seq: int, key: tuple[str, str], before: int) -> None:
        now, cap = _used(self._state, key), self._caps.get(key[0])
        if cap is not None and now > max(cap, before):
            self._world.fail(f"P3: record {seq} holds {now} on {key[0]} of {cap}")

    def drawn(self, rid: str, granted: Granted) -> None:
        """An edge is about to send an attempt that it has admitted by itself: never for more than it was lent."""
        leased = self.leases.get(granted.lease)
        self._drawn[granted.lease] += granted.held_nano_usd
        if leased is None or self._drawn[granted.lease] > leased.terms.nano_usd:
            self._world.fail(f"{rid} is sent on {granted.lease}, which has not so much")

    def _was_set_aside(self, entry: Entry) -> None:
        """Until it is booked, the money of an attempt on a lease is held: by itself, or with the lease."""
        usage = entry.usage.usage
        if entry.corrects or not usage.lease or usage.rid in self._state.holds or usage.rid in self.withdrawn:
            return
        lease = self._state.leases.get(usage.lease)
        if lease is None or lease.nano_usd < usage.held_nano_usd:
            self._world.fail(f"{usage.rid} was drawn on {usage.lease}, which is not there any more")

    def _note(self, event: object) -> None:
        match event:
            case Held():
                self.held[event.rid] = event
                if event.rates:
                    self._within_limits(event)
            case Leased():
                self.leases[event.lease] = event
            case Withdrawn():
                self.withdrawn[event.rid] = None
            case Entry():
                self.entries[event.usage.usage.rid].append(event)
                for charge in event.charges:
                    self.charged[charge.budget_id, charge.period_id] += event.usage.cost_nano_usd
            case LimitsApplied():
                limits = company.rules(event.config_rev).catalogue.limits.values()
                self._caps = {limit.id: limit.rule.limit_nano_usd for limit in limits if limit.hard}
            case Decided():
                if event.version <= self._version:
                    self._world.fail(f"decision {event.version} after {self._version}")
                self._version = event.version

    def _within_limits(self, held: Held) -> None:
        """No minute has more client requests than allowed, and no more of them are live at once."""
        self.limited[held.request_id].append(held)
        begun = [attempts[0].admitted_at for attempts in self.limited.values()]
        minute = sum(at > held.admitted_at - 60 * MICROS for at in begun)
        live = sum(any(a.rid in self._state.holds for a in attempts) for attempts in self.limited.values())
        if minute > company.LIMITS.requests_per_minute or live > company.LIMITS.concurrent_requests:
            self._world.fail(f"{held.rid}: {minute} requests in a minute, {live} at once")

    def committed(self, owner: "Owner") -> None:
        """Now and then: what an owner has in memory is what its log says."""
        current = owner.seq == len(self._world.broker.streams["LEDGER"].stored)
        if current and self._world.rng.random() < 0.1:
            self.same(owner)

    def same(self, owner: "Owner") -> None:
        mine, its = (msgspec.structs.asdict(state) for state in (self._state, owner.state))
        for name, value in mine.items():
            same = dict(value) == dict(its[name]) if isinstance(value, Mapping) else value == its[name]
            if not same and name != "priced":  # what changed nothing moves it without a record
                self._world.fail(f"{owner.name}: {name} is not what its log says")

    # At rest.

    def judge(self) -> None:
        for rid in dict.fromkeys((*self.held, *self.usage, *self._world.provider.bill, *self.entries)):
            self._closed(rid)
            self._money(rid)
        self._sums()
        self._rows()
        self._gaps()

    def _closed(self, rid: str) -> None:
        """P1."""
        entries, fail = self.entries.get(rid, []), self._world.fail
        if not entries:
            if rid in self.usage or self._world.provider.bill.get(rid):
                fail(f"P1: {rid} has no entry")
            elif rid not in self.withdrawn:
                fail(f"P1: {rid} was held and is neither closed nor withdrawn")
            return
        if [entry.event_id for entry in entries] != [f"{rid}:{n}" for n in range(len(entries))]:
            fail(f"P1: {rid} has the entries {[entry.event_id for entry in entries]}")
        if entries[0].kind == "correction" or any(entry.kind != "correction" for entry in entries[1:]):
            fail(f"P1: {rid} is closed by {[entry.kind for entry in entries]}")
        if any(after.corrects != before.event_id for before, after in pairwise(entries)):
            fail(f"P1: a correction of {rid} corrects another entry")

    def _money(self, rid: str) -> None:
        """P2. What stands is the best record there is; unless it is flagged it is the provider's bill."""
        entries, fail = self.entries.get(rid, []), self._world.fail
        if not entries:
            return
        stands = sum(entry.usage.cost_nano_usd for entry in entries)
        usage, billed = entries[-1].usage.usage, self._world.provider.bill.get(rid, 0)
        if records := self.usage.get(rid):
            best = max(records, key=lambda record: RANK[record.kind])
            if (usage.kind, stands) != (best.kind, _price(best)):
                fail(f"{rid} stands as {usage.kind} of {stands}, its best record is {best.kind} of {_price(best)}")
        if usage.estimated:
            self.differences[rid] = stands - billed
        elif stands != billed:
            fail(f"P2: {rid} stands at {stands}, billed {billed}")
        if rid in self._world.released and (usage.kind, usage.estimated) != ("settled", False):
            fail(f"{rid} was released to its client whole and stands as {usage.kind}")

    def _sums(self) -> None:
        for key, counter in self._state.counters.items():
            if counter.cost_nano_usd != self.charged[key] or counter.held_nano_usd:
                fail = f"spent {counter.cost_nano_usd}, entries {self.charged[key]}, held {counter.held_nano_usd}"
                self._world.fail(f"{key}: {fail}")
        if self._state.rates.live or self._state.rates.tokens:
            self._world.fail(f"still counted: {self._state.rates.live}")
        if self._state.holds:
            self._world.fail(f"still held: {list(self._state.holds)}")

    def _rows(self) -> None:
        """P5."""
        entries = {entry.event_id: entry.usage.cost_nano_usd for found in self.entries.values() for entry in found}
        if self._world.rows.rows != entries:
            self._world.fail(f"P5: {len(self._world.rows.rows)} rows, {len(entries)} entries")

    def _gaps(self) -> None:
        seqs: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
        for usage in (usage for found in self.usage.values() for usage in found):
            other = seqs[usage.edge, usage.epoch].setdefault(usage.spool_seq, usage.rid)
            if other != usage.rid:
                self._world.fail(f"spool_seq {usage.spool_seq} of {usage.edge} is {other} and {usage.rid}")
        for (edge, epoch), known in seqs.items():
            if sorted(known) != list(range(1, len(known) + 1)):
                self._world.fail(f"{edge} epoch {epoch} has a gap: {sorted(known)}")


def _kind(event: object) -> str:
    return f"entry {event.kind}" if isinstance(event, Entry) else type(event).__name__


def _used(state: State, key: tuple[str, str]) -> int:
    counter = state.counter(*key)
    return counter.cost_nano_usd + counter.held_nano_usd


def _price(usage: UsageRecorded) -> int:
    return sum(line.quantity * PRICES[line.meter] for line in usage.lines)
