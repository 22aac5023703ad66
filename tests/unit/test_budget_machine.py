"""The core against a small dictionary oracle, through everything that can happen to an attempt, with crash and replay."""

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.budget.core import blocks
from services.budget.core.inspection import Inspection
from services.budget.core.line import Line
from services.budget.core.snapshot import Captured, capture, restore, rid_parts, unsound
from services.budget.core.state import TOMBSTONE_MICROS, State
from services.budget.core.step import Close, Expire
from shared.contracts.budget import Denied, Extend, Granted, Queued, TrueUp, Withdraw
from shared.contracts.config import Entity
from shared.contracts.ledger import Commit, Decided, Entry, Held
from shared.contracts.message import Decoder, encode
from shared.contracts.streams import Position
from tests.fixtures import budget as make
from tests.fixtures.budget import DAY, SECOND, USD, Desk

CAPS_USD = (0, 0.02, 0.05, 0.5, 3)
RANK = {"expired": 0, "void": 1, "recovered": 2, "settled": 3}
KEYS = ("key", "key2")
_commit = Decoder(Commit)


def governed(team_usd: float, key_usd: float) -> list[Entity]:
    """A pool above both keys, a hard one on the first, and a soft one that must never matter."""
    return make.organisation(
        team=[make.rule("team", team_usd, "day")],
        key=[make.rule("key", key_usd), make.rule("key", 0.001, "week", mode="soft")],
    )


class Attempts(RuleBasedStateMachine):
    """oracle: for each rid the best (kind, cost) so far; caps as they stand. Records go through bytes, as in the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(governed(3, 3))
        self.caps = {"team:team:day": 3 * USD, "key:key:month": 3 * USD}
        self.rev = 1
        self.rids: list[str] = []
        self.owner: dict[str, str] = {}
        self.closed: dict[str, tuple[str, int]] = {}
        self.withdrawn: dict[str, int] = {}
        self.day: dict[str, str] = {}
        self.waiting: dict[str, str] = {}
        self.records: list[bytes] = []
        self.kept = 0
        self.captured: Captured | None = None
        self.snapshot = (b"", [b""], 0)
        self.priced = 0

    @initialize(team=st.sampled_from(CAPS_USD), key=st.sampled_from(CAPS_USD))
    def begin(self, team: float, key: float) -> None:
        self.govern(team, key)
        for owner in KEYS:
            self.reserve(owner, True, 3_000, 0, 0)

    def commit(self) -> None:
        """What the owner's loop does after a command: write what came of it."""
        self.absorb()
        new, self.kept = self.desk.log[self.kept :], len(self.desk.log)
        state = self.desk.state
        self.records.append(
            encode(
                Commit(
                    shard="0",
                    owner_epoch=state.owner_epoch,
                    at=self.desk.now,
                    digest=b"",
                    priced=state.priced,
                    events=tuple(new),
                )
            )
        )

    def absorb(self) -> None:
        """Who waited has been told."""
        for late in self.desk.late:
            if late.n == 0 and isinstance(late.answer, Granted):
                assert late.rid not in self.closed, "what is closed is never granted"
                self.admitted(late.rid, self.waiting[late.rid])
            self.waiting.pop(late.rid, None)
        self.desk.late.clear()

    def admitted(self, rid: str, key: str) -> None:
        self.owner[rid], self.day[rid] = key, self.period()
        for budget_id in ("team:team:day", "key:key:month") if key == "key" else ("team:team:day",):
            assert self.used(budget_id) <= self.caps[budget_id], "P3: a grant raised a hard budget above its cap"

    def period(self) -> str:
        return self.desk.rules.catalogue.limits["team:team:day"].calendar.at(self.desk.now).id

    @rule(
        key=st.sampled_from(KEYS),
        stream=st.booleans(),
        max_tokens=st.sampled_from((100, 3_000, 30_000)),
        replaces=st.integers(0, 5),
        waited=st.sampled_from((0, 20_000)),
    )
    def reserve(self, key: str, stream: bool, max_tokens: int, replaces: int, waited: int) -> None:
        rid = f"r{len(self.rids)}"
        self.rids.append(rid)
        old = self.rids[-1 - replaces] if 0 < replaces < len(self.rids) else ""
        old = old if self.owner.get(old) == key else ""
        before = {b: self.used(b) for b in self.caps}
        answer = self.desk.do(
            make.ask(rid, key, max_tokens=max_tokens, stream=stream, replaces_rid=old, waited_ms=waited)
        )
        if isinstance(answer, Granted):
            self.admitted(rid, key)
        elif isinstance(answer, Queued):
            assert waited < 20_000
            self.waiting[rid] = key
            assert {b: self.used(b) for b in self.caps} == before
        else:
            assert isinstance(answer, Denied)
        self.commit()

    def used(self, budget_id: str) -> int:
        return sum(self.desk.booked(budget_id))

    def any_rid(self, index: int) -> str:
        return self.rids[index % len(self.rids)]

    @rule(index=st.integers(0, 50))
    def reserve_again(self, index: int) -> None:
        rid = self.any_rid(index)
        if rid in self.waiting:
            self.keep_the_turn(rid)
            return
        if rid not in self.owner or (rid not in self.closed and self.forgotten(rid)):
            return
        events = len(self.desk.log)
        answer = self.desk.do(make.ask(rid, self.owner[rid]))
        assert len(self.desk.log) == events
        finished = rid in self.closed or rid in self.withdrawn
        assert isinstance(answer, Denied if finished else Granted)

    def keep_the_turn(self, rid: str) -> None:
        answer = self.desk.do(make.ask(rid, self.waiting[rid]))
        if not isinstance(answer, Queued):
            key = self.waiting.pop(rid)
            if isinstance(answer, Granted):
                self.admitted(rid, key)
        self.commit()

    def forgotten(self, rid: str) -> bool:
        """Withdrawn so long ago that no edge can still be asking."""
        return self.desk.now - self.withdrawn.get(rid, self.desk.now) >= TOMBSTONE_MICROS

    @rule(
        index=st.integers(0, 50),
        kind=st.sampled_from(("settled", "settled", "recovered", "void")),
        cost=st.integers(0, USD // 10),
    )
    def close(self, index: int, kind: str, cost: int) -> None:
        rid = self.any_rid(index)
        if rid not in self.owner:
            return  # what was never granted is never sent
        cost = 0 if kind == "void" else cost
        self.priced += 1
        charges = self.desk.state.holds[rid].held.charges if rid in self.desk.state.holds else self.charges(rid)
        priced = make.usage(rid, kind, cost, key=self.owner[rid], charges=charges)
        self.desk.do(Close(priced, Position(log_id="p", seq=self.priced)))
        self.commit()
        if rid not in self.closed or RANK[kind] > RANK[self.closed[rid][0]]:
            self.closed[rid] = (kind, cost)

    def charges(self, rid: str) -> Any:
        held = next(event for event in self.desk.log if isinstance(event, Held) and event.rid == rid)
        return held.charges

    @rule(index=st.integers(0, 50))
    def withdraw(self, index: int) -> None:
        rid = self.any_rid(index)
        self.desk.do(Withdraw(rid=rid, edge="e1", epoch=1))
        self.waiting.pop(rid, None)
        self.commit()
        if rid not in self.closed:
            self.withdrawn.setdefault(rid, self.desk.now)

    @rule(index=st.integers(0, 50), tokens=st.integers(0, 5_000), price=st.integers(0, USD // 50))
    def true_up(self, index: int, tokens: int, price: int) -> None:
        before = {b: self.used(b) for b in self.caps}
        self.desk.do(TrueUp(rid=self.any_rid(index), input_tokens=tokens, nano_usd=price))
        if not self.desk.late:
            assert all(self.used(b) <= before[b] for b in self.caps)
        self.commit()

    @rule(index=st.integers(0, 50), n=st.integers(1, 3), tokens=st.integers(1, 4_000))
    def extend(self, index: int, n: int, tokens: int) -> None:
        rid = self.any_rid(index)
        events = len(self.desk.log)
        self.desk.do(Extend(rid=rid, n=n, output_tokens=tokens))
        self.commit()
        if len(self.desk.log) > events and self.day[rid] == self.period():
            assert self.used("team:team:day") <= self.caps["team:team:day"], "P3: an extension passed the cap"

    @rule(index=st.integers(0, 50))
    def expire(self, index: int) -> None:
        rid = self.any_rid(index)
        hold = self.desk.state.holds.get(rid)
        amount = hold.nano_usd if hold else 0
        self.desk.do(Expire(rid))
        self.commit()
        if hold:
            self.closed[rid] = ("expired", amount)

    @rule(team=st.sampled_from(CAPS_USD), key=st.sampled_from(CAPS_USD))
    def govern(self, team: float, key: float) -> None:
        self.rev += 1
        self.caps = {"team:team:day": round(team * USD), "key:key:month": round(key * USD)}
        self.desk.regulate(governed(team, key), self.rev)
        self.commit()

    @rule(by=st.sampled_from((SECOND, DAY)))
    def time_passes(self, by: int) -> None:
        self.desk.now += by
        self.desk.tick()
        for waiter in self.desk.line.waiters.values():
            assert self.desk.now - waiter.applicant.came < 20 * SECOND, "nobody waits longer than the budget says"
        self.commit()

    @rule()
    def decide_blocks(self) -> None:
        scopes = ("team:team", "key:key")
        before = self.desk.state.version
        for decided in blocks.due(self.desk.state, self.desk.rules, scopes, self.desk.now):
            self.desk.state.apply(decided)
            self.desk.log.append(decided)
        self.commit()
        versions = [event.version for event in self.desk.log[-2:] if isinstance(event, Decided)]
        assert all(v > before or v <= self.desk.state.version for v in versions)
        for scope, budget_id in zip(scopes, ("team:team:day", "key:key:month"), strict=True):
            spent = self.desk.booked(budget_id)[0] >= self.caps[budget_id]
            assert (scope in blocks.blocked(self.desk.state)) == spent

    @rule()
    def crash_and_replay(self) -> None:
        """What is not in a record is lost; everything that was answered is in one."""
        self.desk.state = replayed(self.records)
        self.desk.line = Line()  # the edges ask again
        self.waiting.clear()
        self.captured = None

    @rule()
    def a_snapshot_begins(self) -> None:
        if self.captured is None:
            state = self.desk.state
            self.captured = capture(state, Position(log_id="l", seq=len(self.records)), b"", state.priced)

    @rule()
    def a_snapshot_is_written(self) -> None:
        """What was captured, however much has happened since."""
        if captured := self.captured:
            self.snapshot = (captured.head, list(rid_parts(captured.settled)), captured.at.seq)
            self.desk.state.closings.thaw()
            self.captured = None

    @invariant()
    def a_snapshot_and_what_came_after_it_give_the_live_state(self) -> None:
        head, parts, seq = self.snapshot
        if seq:
            state = restore(head, iter(parts))
            assert not unsound(state)
            for record in self.records[seq:]:
                state.fold(_commit.decode(record))
            assert state == self.desk.state

    @invariant()
    def replay_gives_the_live_state(self) -> None:
        live = self.desk.state
        again = replayed(self.records)
        assert again.counters == live.counters
        assert again == live

    @invariant()
    def nobody_waits_where_there_is_room_and_nobody_before(self) -> None:
        line = self.desk.line
        for waiter in line.waiters.values():
            assert waiter.stands_at, "a waiter stands somewhere"
            assert waiter.rid not in self.desk.state.holds
            for budget_id in waiter.stands_at:
                first = line.first(budget_id)
                assert first is not None
                spent, held = self.desk.booked(budget_id)
                wishes = list(line.wishes_at(budget_id))
                if first is waiter and not wishes:
                    left = self.caps[budget_id] - spent
                    size = waiter.applicant.size
                    enough = size.want_nano_usd if size.want_nano_usd <= left else size.need_nano_usd
                    assert left - held < enough, f"{waiter.rid} waits for nothing"

    @invariant()
    def the_sum_of_entries_is_what_stands(self) -> None:
        entries = [event for event in self.desk.log if isinstance(event, Entry)]
        booked: dict[str, int] = {}
        for entry in entries:
            rid = entry.usage.usage.rid
            booked[rid] = booked.get(rid, 0) + entry.usage.cost_nano_usd
        assert booked == {rid: cost for rid, (_, cost) in self.closed.items()}
        assert len({entry.event_id for entry in entries}) == len(entries)

    @invariant()
    def every_admitted_attempt_is_held_closed_or_withdrawn(self) -> None:
        for rid in self.owner:
            states = (rid in self.desk.state.holds, rid in self.closed or rid in self.withdrawn)
            assert sum(states) == 1, f"{rid}: held, finished = {states}"

    @invariant()
    def held_is_the_sum_of_the_holds(self) -> None:
        sums: dict[tuple[str, str], int] = {}
        for hold in self.desk.state.holds.values():
            assert hold.nano_usd >= 0
            for charge in hold.held.charges:
                name = (charge.budget_id, charge.period_id)
                sums[name] = sums.get(name, 0) + hold.nano_usd
        held = {name: counter.held_nano_usd for name, counter in self.desk.state.counters.items()}
        assert {name: amount for name, amount in held.items() if amount} == {n: a for n, a in sums.items() if a}

    def teardown(self) -> None:
        """An inspection finds nothing wrong with any ledger that the core has written; the chain is the owner's work."""
        inspection = Inspection()
        for seq, record in enumerate(self.records, 1):
            inspection.feed(seq, record, _commit.decode(record))
        wrong = [check for check in inspection.checks() if check.state == "fail" and check is not inspection.chain]
        assert not wrong


def replayed(records: Sequence[bytes]) -> State:
    state = State()
    for record in records:
        state.fold(_commit.decode(record))
    return state


Attempts.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestAttempts = Attempts.TestCase
