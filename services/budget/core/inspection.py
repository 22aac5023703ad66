"""Checks a ledger record by record against what ledger.md promises. It believes no figure of the owner's."""

import hashlib

import msgspec

from services.budget.core.closings import Closing
from services.budget.core.luggage import unpack
from services.budget.core.snapshot import unsound
from services.budget.core.state import Counter, CounterKey, State
from shared.contracts.ledger import Arrived, Commit, Departed, Entry, EpochBegan, Held, LedgerEvent, Withdrawn
from shared.contracts.pricing import UsagePriced

NO_RECORD = bytes(32)
MOST_TOLD = 5  # of one kind of failure

Sums = tuple[int, int, int]  # list, cost, charge in nano-USD


class Check(msgspec.Struct, kw_only=True):
    """One line of the report. state: ok, fail, left out (it could not be made; `said` is why). failures: the first few."""

    name: str
    state: str = "ok"
    said: str = ""
    failed: int = 0
    failures: list[str] = []

    def fail(self, why: str) -> None:
        self.state = "fail"
        self.failed += 1
        if len(self.failures) < MOST_TOLD:
            self.failures.append(why)


class Attempt(msgspec.Struct):
    """An attempt that is not finished for good: its entries so far. pico: of all lines together."""

    kind: str
    entries: int
    nano: Sums
    pico: Sums


class Inspection:
    """feed() it every record in order, then ask for its checks. state: the fold of what was fed."""

    def __init__(self) -> None:
        self.state = State()
        self.digest = NO_RECORD
        self.records = self.entries = 0
        self.totals: Sums = (0, 0, 0)
        self.chain = Check(name="each record carries the digest of the one before")
        self.epochs = Check(name="owner epochs rise by one, each record is its owner's")
        self.priced = Check(name="the position in PRICED never goes back")
        self.closed_once = Check(name="each attempt has one closing entry, corrections follow it in order")
        self.amounts = Check(name="each attempt's entries sum to its lines, rounded up once")
        self.finished = Check(name="each hold is live, closed or withdrawn")
        self.held = Check(name="what budgets hold is the sum of the live holds")
        self.spent = Check(name="what budgets have spent is the sum of their entries")
        self._open: dict[str, Attempt] = {}
        self._settled: set[str] = set()
        self._unfinished: set[str] = set()
        self._booked: dict[CounterKey, Sums] = {}
        self._epoch = 0

    def unreadable(self, seq: int, data: bytes, why: str) -> None:
        """Instead of feed(), for a record that is none, or of a newer release."""
        self.chain.fail(f"record {seq} cannot be read: {why}")
        self.digest = hashlib.sha256(data).digest()

    def feed(self, seq: int, data: bytes, commit: Commit) -> None:
        if commit.digest != self.digest:
            self.chain.fail(f"record {seq} does not follow the one before it")
        self.digest = hashlib.sha256(data).digest()
        self.records += 1
        for event in commit.events:
            self._event(seq, event)
        if commit.owner_epoch != self._epoch:
            self.epochs.fail(f"record {seq} is of epoch {commit.owner_epoch} in epoch {self._epoch}")
        if commit.priced.log_id == self.state.priced.log_id and commit.priced.seq < self.state.priced.seq:
            self.priced.fail(f"record {seq} goes back from {self.state.priced.seq} to {commit.priced.seq}")
        try:
            self.state.fold(commit)
        except KeyError as error:
            self.finished.fail(f"record {seq} tells of an attempt without a hold: {error}")
        for event in commit.events:
            if isinstance(event, Departed):
                self._departed(event)

    def checks(self) -> list[Check]:
        """After the last record."""
        for rid in sorted(self._unfinished ^ self.state.holds.keys())[:MOST_TOLD]:
            self.finished.fail(f"{rid} was {'admitted but is neither' if rid in self._unfinished else 'never'} held")
        if problem := unsound(self.state):
            self.held.fail(problem)
        for key in self.state.counters.keys() | self._booked.keys():
            counter, booked = self.state.counter(*key), self._booked.get(key, (0, 0, 0))
            self._check_spent(key, counter, booked)
        for rid, attempt in self._open.items():
            self._check_amounts(rid, attempt.nano, attempt.pico)
        self._say()
        return [
            *(self.chain, self.epochs, self.priced, self.closed_once),
            *(self.amounts, self.finished, self.held, self.spent),
        ]

    def _say(self) -> None:
        self.chain.said = f"{self.records:,} records"
        self.epochs.said = f"epoch {self._epoch}"
        self.priced.said = f"at {self.state.priced.seq:,}"
        self.closed_once.said = f"{self.entries:,} entries, {len(self._settled) + len(self._open):,} attempts"
        self.amounts.said = f"{len(self._open):,} of them not settled at once"
        self.finished.said = f"{len(self.state.holds):,} live"
        self.held.said = f"{len(self.state.counters):,} budgets and periods"
        self.spent.said = f"{self.totals[1]:,} nano-USD of cost in all"

    def _event(self, seq: int, event: LedgerEvent) -> None:
        match event:
            case EpochBegan():
                if event.owner_epoch != self._epoch + 1:
                    self.epochs.fail(f"record {seq} begins epoch {event.owner_epoch} after {self._epoch}")
                self._epoch = event.owner_epoch
            case Held():
                if event.rid in self._settled or event.rid in self._open:
                    self.finished.fail(f"record {seq} holds {event.rid}, which is closed")
                self._unfinished.add(event.rid)
            case Withdrawn():
                self._unfinished.discard(event.rid)
            case Entry():
                self._entry(seq, event)
            case Arrived():
                self._arrived(seq, event)

    def _departed(self, event: Departed) -> None:
        """What left is no longer to be found here; what it came to is what its entries come to."""
        luggage = self.state.stays[event.org].luggage
        self._unfinished -= luggage.holds.keys()
        for key in luggage.counters.keys() & self._booked.keys():
            self._check_spent(key, luggage.counters[key], self._booked.pop(key))
        for rid in luggage.closings.keys() & self._open.keys():
            attempt = self._open.pop(rid)
            self._check_amounts(rid, attempt.nano, attempt.pico)

    def _arrived(self, seq: int, event: Arrived) -> None:
        stay = self.state.stays.get(event.org)
        if event.after != (stay.pieces if stay and stay.move == event.move else 0):
            self.finished.fail(f"record {seq} has pieces of {event.org} from {event.after} on, which do not follow")
        luggage = unpack(event.data)
        self._unfinished |= luggage.holds.keys() - self.state.tombstones.keys()
        for key, counter in luggage.counters.items():
            self._booked[key] = (counter.list_nano_usd, counter.cost_nano_usd, counter.charge_nano_usd)
        for rid, one in luggage.closings.items():
            if rid not in self._open and rid not in self._settled:
                self._open[rid] = Attempt(one.kind, one.n + 1, _sums(one), _pico(one))

    def _entry(self, seq: int, entry: Entry) -> None:
        self.entries += 1
        priced, rid = entry.usage, entry.usage.usage.rid
        nano, pico = _nano(priced), _pico(priced)
        self.totals = _plus(self.totals, nano)
        for charge in entry.charges:
            key = (charge.budget_id, charge.period_id)
            self._booked[key] = _plus(self._booked.get(key, (0, 0, 0)), nano)
        self._unfinished.discard(rid)
        before = self._open.get(rid)
        n = before.entries if before else int(rid in self._settled)
        corrects = f"{rid}:{n - 1}" if n else ""
        is_next = (entry.event_id, entry.corrects, entry.kind == "correction") == (f"{rid}:{n}", corrects, n > 0)
        if not is_next or rid in self._settled or (before and before.kind == "settled"):
            self.closed_once.fail(f"record {seq} has {entry.kind} {entry.event_id}, but {rid} has {n} entries")
        if before or priced.usage.kind != "settled":
            sums = (_plus(before.nano, nano), _plus(before.pico, pico)) if before else (nano, pico)
            self._open[rid] = Attempt(priced.usage.kind, n + 1, *sums)
        else:
            self._settled.add(rid)
            self._check_amounts(rid, nano, pico)

    def _check_spent(self, key: CounterKey, counter: Counter, booked: Sums) -> None:
        if (counter.list_nano_usd, counter.cost_nano_usd, counter.charge_nano_usd) != booked:
            self.spent.fail(f"{key[0]} in {key[1]}: {counter.cost_nano_usd} nano-USD of cost, entries: {booked[1]}")

    def _check_amounts(self, rid: str, nano: Sums, pico: Sums) -> None:
        if nano != tuple(-(-amount // 1_000) for amount in pico):
            self.amounts.fail(f"{rid} is booked with {nano}, its lines are {pico} pico-USD (list, cost, charge)")


def sums_of(entry: Entry) -> Sums:
    return _nano(entry.usage)


def _nano(priced: UsagePriced) -> Sums:
    return priced.list_nano_usd, priced.cost_nano_usd, priced.charge_nano_usd


def _sums(one: Closing) -> Sums:
    return one.list_nano_usd, one.cost_nano_usd, one.charge_nano_usd


def _pico(priced: UsagePriced | Closing) -> Sums:
    lines = priced.lines
    return (
        sum(line.list_pico_usd for line in lines),
        sum(line.cost_pico_usd for line in lines),
        sum(line.charge_pico_usd for line in lines),
    )


def _plus(a: Sums, b: Sums) -> Sums:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
