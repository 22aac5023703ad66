"""P1 to P5 of docs/ledger.md, judged by small books of its own: it believes no figure that a service has computed."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from shared.contracts.edge import UsageRecorded
from shared.contracts.ledger import Entry, Extended, Held, Leased, LedgerEvent, Returned, TruedUp, Withdrawn
from tests.chaos.books import Books

MOST_TOLD = 5  # of each promise


class Broken(AssertionError):
    """Promises that were not kept, one a line."""


class Figures(msgspec.Struct, kw_only=True):
    """What a run came to. Differences: booked less billed, nano-USD.

    whole: answers that clients saw to their end. whole_exact: those that are settled without an estimate.
    unbilled: attempts that are booked, flagged, and on no bill.
    excess_nano_usd: by how much counters stood above a hard cap at worst, all of it booked as overruns.
    """

    billed: int = 0
    closed: int = 0
    entries: int = 0
    rows: int = 0
    duplicates: int = 0
    exact: int = 0
    exact_nano_usd: int = 0
    exact_difference: int = 0
    flagged: int = 0
    flagged_difference: int = 0
    unbilled: int = 0
    whole: int = 0
    whole_exact: int = 0
    excess_nano_usd: int = 0

    def report(self) -> str:
        return (
            f"attempts billed − closed: {self.billed} − {self.closed} = {self.billed - self.closed}; "
            f"entries − rows: {self.entries} − {self.rows} = {self.entries - self.rows}; duplicates: {self.duplicates}; "
            f"money over {self.exact} unflagged attempts ({self.exact_nano_usd} nano-USD): {self.exact_difference}; "
            f"over {self.flagged} flagged ones: {self.flagged_difference} nano-USD, {self.unbilled} of them on no bill; "
            f"answers seen whole by clients − settled exactly: {self.whole} − {self.whole_exact} = "
            f"{self.whole - self.whole_exact}; "
            f"above hard caps: {self.excess_nano_usd}"
        )


class Attempt(msgspec.Struct):
    """What the ledger says of one rid."""

    held: list[Held] = []
    withdrawn: bool = False
    entries: list[Entry] = []

    @property
    def stands(self) -> int:
        return sum(entry.usage.cost_nano_usd for entry in self.entries)

    @property
    def usage(self) -> UsageRecorded:
        """The best record there is."""
        return self.entries[-1].usage.usage


class Judge:
    """Feed it the books; `verdict` raises Broken or tells the figures. whole: upstream ids of answers that clients saw
    to their end, nothing of which may rest on an estimate.
    """

    def __init__(self, books: Books, whole: Iterable[str] = ()) -> None:
        self._books = books
        self._whole = frozenset(whole)
        self._attempts: dict[str, Attempt] = defaultdict(Attempt)
        self._broken: list[str] = []
        self.figures = Figures()

    def verdict(self) -> Figures:
        self._log()
        self._caps()
        for rid, attempt in self._attempts.items():
            self._closed(rid, attempt)
        self._stored_once()
        if self._books.bill:  # else a run of the ledger alone
            self._money()
            self._rows()
        if self._broken:
            raise Broken("\n".join((*_told(self._broken), self.figures.report())))
        return self.figures

    def _fail(self, why: str) -> None:
        self._broken.append(why)

    def _log(self) -> None:
        """The chain holds; then attempts by rid."""
        digest = bytes(32)
        for record in self._books.records:
            if record.commit.digest != digest:
                self._fail(f"P7: ledger record {record.seq} was not written after the one before it")
            digest = hashlib.sha256(record.data).digest()
            for event in record.commit.events:
                self._note(event)

    def _note(self, event: LedgerEvent) -> None:
        match event:
            case Held():
                self._attempts[event.rid].held.append(event)
            case Withdrawn():
                self._attempts[event.rid].withdrawn = True
            case Entry():
                self._attempts[event.usage.usage.rid].entries.append(event)

    def _caps(self) -> None:
        """P3: nothing that raises a hold brings spent and held above the cap."""
        counters = Counters(self._books.caps)
        for record in self._books.records:
            for event in record.commit.events:
                for why in counters.apply(event):
                    self._fail(f"P3: record {record.seq}: {why}")
        self.figures.excess_nano_usd = counters.excess
        if counters.excess > counters.overruns:
            self._fail(f"P4: overspent by {counters.excess} nano-USD, of which {counters.overruns} are named overruns")

    def _closed(self, rid: str, attempt: Attempt) -> None:
        """P1: one closing entry, then corrections in order; no attempt goes out without a hold."""
        entries = attempt.entries
        if len(attempt.held) > 1:
            self._fail(f"P1: {rid} was held {len(attempt.held)} times")
        if not entries:
            if not attempt.withdrawn:
                self._fail(f"P1: {rid} was admitted and is neither closed nor withdrawn")
            return
        if [entry.event_id for entry in entries] != [f"{rid}:{n}" for n in range(len(entries))]:
            self._fail(f"P1: {rid} has the entries {[entry.event_id for entry in entries]}")
        if [entry.kind == "correction" for entry in entries] != [n > 0 for n in range(len(entries))]:
            self._fail(f"P1: {rid} is closed by {[entry.kind for entry in entries]}")
        if any(after.corrects != before.event_id for before, after in pairwise(entries)):
            self._fail(f"P1: a correction of {rid} corrects another entry")
        on_lease = bool(attempt.usage.lease and entries[0].held_nano_usd)  # closed before it was told of
        if attempt.usage.sent_at and not attempt.held and not on_lease:
            self._fail(f"P3: {rid} was sent, and the ledger has no hold for it")
        if attempt.usage.ungoverned:
            self._fail(f"P3: {rid} was admitted ungoverned under hard budgets")

    def _stored_once(self) -> None:
        """Records keep their ids, so what was published again is stored once; and none is missing."""
        ids = [f"{usage.rid}:{usage.kind}" for usage in self._books.usage]
        ids += [request.request_id for request in self._books.requests]
        for name in self._repeated(ids):
            self._fail(f"P7: {name} was stored twice")
        seqs: dict[tuple[str, int], set[int]] = defaultdict(set)
        for usage in self._books.usage:
            seqs[usage.edge, usage.epoch].add(usage.spool_seq)
        for (_, epoch), found in seqs.items():
            if len(found) != max(found):
                self._fail(f"P7: usage of an edge's epoch {epoch} has a gap")

    def _money(self) -> None:
        """P1 and P2, from the bill's side."""
        books, figures = self._books, self.figures
        closed = {rid: attempt for rid, attempt in self._attempts.items() if attempt.entries}
        matched = _match(books.bill, closed)
        figures.billed = len(books.bill)
        for line, rid in zip(books.bill, matched, strict=True):
            if rid is None:
                figures.whole += line["request_id"] in self._whole
                self._fail(f"P1: the bill has an attempt without an entry: {line['request_id']} {line['outcome']}")
                continue
            figures.closed += 1
            self._compare(rid, closed.pop(rid), line["cost_nano_usd"], line["request_id"])
        for rid, attempt in closed.items():
            if attempt.stands:
                figures.unbilled += 1
                self._compare(rid, attempt, 0, attempt.usage.upstream_request_id)

    def _compare(self, rid: str, attempt: Attempt, billed: int, upstream_id: str) -> None:
        figures, usage = self.figures, attempt.usage
        if upstream_id in self._whole:
            figures.whole += 1
            if usage.kind == "settled" and not usage.estimated:
                figures.whole_exact += 1
            else:
                self._fail(f"P7: {rid} was seen whole by its client and stands as {attempt.entries[-1].kind}")
        if usage.estimated:
            figures.flagged += 1
            figures.flagged_difference += attempt.stands - billed
            return
        figures.exact += 1
        figures.exact_nano_usd += billed
        figures.exact_difference += attempt.stands - billed
        if attempt.stands != billed:
            self._fail(f"P2: {rid} stands at {attempt.stands}, billed {billed}: {usage.outcome}, {usage.lines}")

    def _rows(self) -> None:
        """P5."""
        entries = {entry.event_id: entry.usage.cost_nano_usd for a in self._attempts.values() for entry in a.entries}
        self.figures.entries, self.figures.rows = len(entries), len(self._books.rows)
        for name in self._repeated([event_id for event_id, _ in self._books.rows]):
            self._fail(f"P5: {name} has two rows")
        for name in self._repeated(self._books.request_rows):
            self._fail(f"P5: request {name} has two rows")
        rows = dict(self._books.rows)
        for event_id in entries.keys() ^ rows.keys():
            self._fail(f"P5: {event_id} is {'an entry without a row' if event_id in entries else 'a row only'}")
        for event_id in entries.keys() & rows.keys():
            if entries[event_id] != rows[event_id]:
                self._fail(f"P5: {event_id} is {entries[event_id]} in the ledger, {rows[event_id]} in its row")

    def _repeated(self, ids: Sequence[str]) -> list[str]:
        found = [name for name, count in Counter(ids).items() if count > 1]
        self.figures.duplicates += len(found)
        return found


class Counters:
    """Spent and held of each hard budget, from the ledger's events alone. excess: above a cap, at worst.

    What an attempt holds was held by its lease before it, where it is on one: that is released first. An attempt that another
    one replaces keeps its input, once the provider has counted it, and nothing before that (ledger.md, section 2).
    """

    def __init__(self, caps: Mapping[str, int]) -> None:
        self._caps = caps
        self._live: dict[str, tuple[list[tuple[str, str]], int, int]] = {}  # charges, input part, output part
        self._leases: dict[str, tuple[list[tuple[str, str]], int]] = {}  # charges, what is left
        self._paid: set[str] = set()
        self._counted: set[str] = set()  # attempts whose input the provider has counted
        self._used: dict[tuple[str, str], int] = defaultdict(int)
        self.excess = self.overruns = 0

    def apply(self, event: LedgerEvent) -> list[str]:
        """Why it should not have been, for each budget that it should not have raised."""
        match event:
            case Leased():
                keys = [(charge.budget_id, charge.period_id) for charge in event.terms.charges]
                self._leases[event.lease] = (keys, event.terms.nano_usd)
                return self._raise(event.lease, keys, event.terms.nano_usd)
            case Returned():
                keys, left = self._leases.pop(event.lease, ([], 0))
                self._book(keys, -left)
            case Held():
                self._pay(event.lease, event.rid, event.nano_usd)
                self._replace(event.replaces_rid)
                keys = [(charge.budget_id, charge.period_id) for charge in event.charges]
                self._live[event.rid] = (keys, event.input_nano_usd, event.nano_usd - event.input_nano_usd)
                return self._raise(event.rid, keys, event.nano_usd)
            case Extended() if event.rid in self._live:
                keys, given, made = self._live[event.rid]
                self._live[event.rid] = (keys, given, made + event.nano_usd)
                return self._raise(event.rid, keys, event.nano_usd)
            case TruedUp() if event.rid in self._live:
                keys, given, made = self._live[event.rid]
                self._live[event.rid] = (keys, event.input_nano_usd, made)
                self._counted.add(event.rid)
                self._book(keys, event.input_nano_usd - given)
            case Withdrawn():
                self._release(event.rid)
            case Entry():
                usage = event.usage.usage
                self._pay(usage.lease, usage.rid, usage.held_nano_usd)
                self._release(usage.rid)
                self.overruns += event.overrun_nano_usd
                self._book([(c.budget_id, c.period_id) for c in event.charges], event.usage.cost_nano_usd)
        return []

    def _raise(self, rid: str, keys: list[tuple[str, str]], amount: int) -> list[str]:
        self._book(keys, amount)
        above = [key for key in keys if key[0] in self._caps and self._used[key] > self._caps[key[0]]]
        return [f"holding {rid} brings {key[0]} to {self._used[key]} of {self._caps[key[0]]}" for key in above]

    def _pay(self, lease: str, rid: str, amount: int) -> None:
        """From its lease, once."""
        if lease in self._leases and rid not in self._paid:
            keys, left = self._leases[lease]
            self._paid.add(rid)
            self._leases[lease] = (keys, left - min(amount, left))
            self._book(keys, -min(amount, left))

    def _replace(self, rid: str) -> None:
        if rid in self._live:
            keys, given, made = self._live[rid]
            kept = given if rid in self._counted else 0
            self._live[rid] = (keys, kept, 0)
            self._book(keys, kept - given - made)

    def _release(self, rid: str) -> None:
        keys, given, made = self._live.pop(rid, ([], 0, 0))
        self._book(keys, -(given + made))

    def _book(self, keys: list[tuple[str, str]], amount: int) -> None:
        for key in keys:
            self._used[key] += amount
            if cap := self._caps.get(key[0]):
                self.excess = max(self.excess, self._used[key] - cap)


def _told(broken: Sequence[str]) -> list[str]:
    """The first few of each promise, and how many there are."""
    by_promise: dict[str, list[str]] = defaultdict(list)
    for why in broken:
        by_promise[why.partition(":")[0]].append(why)
    found: list[str] = []
    for promise, reasons in by_promise.items():
        found += reasons[:MOST_TOLD]
        if len(reasons) > MOST_TOLD:
            found.append(f"{promise}: {len(reasons)} in all")
    return found


def _match(bill: Sequence[Mapping[str, str]], closed: Mapping[str, Attempt]) -> list[str | None]:
    """The rid of each line. An edge that died before it saw an answer knows no upstream id: then the body tells, of which
    no two requests have the same, though one request may have been sent again.
    """
    by_upstream: dict[str, str] = {}
    unseen: dict[str, list[str]] = defaultdict(list)
    for rid, attempt in closed.items():
        if upstream_id := attempt.usage.upstream_request_id:
            by_upstream[upstream_id] = rid
        elif attempt.usage.sent_at or attempt.stands:
            unseen[attempt.usage.body_digest.hex()].append(rid)
    found: list[str | None] = []
    for line in bill:
        waiting = unseen[line["body_digest"]]
        found.append(by_upstream.get(line["request_id"]) or (waiting.pop(0) if waiting else None))
    return found
