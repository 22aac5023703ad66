"""An owner, small: decides with the real core, writes one record, and only then answers."""

import asyncio
import hashlib
from collections import deque

from services.budget.core import blocks, turns
from services.budget.core.group import Group
from services.budget.core.line import Line
from services.budget.core.presence import Presence
from services.budget.core.state import State
from services.budget.core.step import Answer, Close, Command, Expire, decide, touched
from shared.contracts.budget import (
    CUT,
    EXTEND,
    RESERVE,
    TRUEUP,
    WITHDRAW,
    Cut,
    Denied,
    Done,
    Extend,
    Granted,
    Queued,
    Reserve,
    TrueUp,
    Verdict,
    Withdraw,
)
from shared.contracts.edge import EdgeStatus
from shared.contracts.ledger import Commit, EpochBegan, LedgerEvent, LimitsApplied
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from shared.errors import Overtaken, Unavailable
from tests.simulation import company
from tests.simulation.clock import MICROS
from tests.simulation.lending import Careless, Lending
from tests.simulation.world import SHARD, Process, World

ABSENT_MICROS = 60 * MICROS
STALL_MICROS = 5 * MICROS
PATIENCE = 5
GROUP = 8
_commit = Decoder(Commit)
_priced = Decoder(UsagePriced)
_reserve, _extend = Decoder(Reserve), Decoder(Extend)
_withdraw, _cut, _true_up = Decoder(Withdraw), Decoder(Cut), Decoder(TrueUp)
_status = Decoder(EdgeStatus)


Step = tuple[list[LedgerEvent], list[tuple["asyncio.Future[Answer]", Answer]]]
"""What a group of commands led to, and who is told once it is durable."""


class Owner(Process):
    """One incarnation. seq, digest: of the last record of the ledger, as it knows it."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.state = State()
        self.seq, self.digest = 0, bytes(32)
        self._queue: deque[tuple[Command, asyncio.Future[Answer] | None]] = deque()
        self._wake = asyncio.Event()
        self._latest = 0
        self._skew = world.rng.choice((0, 0, -1_500_000, 1_500_000))  # machines agree on the time only roughly
        self._line = Line()
        self._lending = Lending(self)
        self._undecided: dict[str, None] = {}
        self._last_tick = 0

    def now(self) -> int:
        self._latest = max(self._latest, self.world.now() + self._skew)
        return self._latest

    async def run(self) -> None:
        await self._replay()
        began = EpochBegan(owner_epoch=self.state.owner_epoch + 1, at=self.now())
        self.state.apply(began)
        await self._commit(self._record([began]), [began])
        self.world.committed(self)
        self.world.note(f"{self.name}: epoch {self.state.owner_epoch} began at {self.seq}")
        self._presence = Presence(ABSENT_MICROS, self.now())
        for edge in self.world.disks:
            self._presence.expect(edge, self.now())
        self.spawn(self._follow_priced())
        self.spawn(self._watch())
        self._subscribe()
        while True:
            await self._wake.wait()
            await self._work()

    async def _replay(self) -> None:
        (last,) = await self.port.persist(lambda: self.port.last("LEDGER"))
        while last and self.seq < last.seq:
            for stored in await self.port.read("LEDGER", self.seq, 500):
                commit = _commit.decode(stored.data)
                if commit.digest != self.digest:
                    self.world.fail(f"ledger record {stored.seq} does not follow the one before it")
                self.state.fold(commit)
                self.seq, self.digest = stored.seq, hashlib.sha256(stored.data).digest()

    def _subscribe(self) -> None:
        for subject, handler in (
            (RESERVE, self._on_reserve),
            (EXTEND, self._on_extend),
            (WITHDRAW, self._on_withdraw),
            (CUT, self._on_cut),
            (TRUEUP, self._on_true_up),
        ):
            self.port.subscribe(subject.format(shard=SHARD), handler)
        self.port.subscribe("edge.status", self._on_status)
        self._lending.subscribe()

    # Commands in, answers out.

    def tell(self, command: Command) -> "asyncio.Future[Answer]":
        future: asyncio.Future[Answer] = self.world.loop.create_future()
        self._queue.append((command, future))
        self._wake.set()
        return future

    async def _on_reserve(self, data: bytes) -> bytes | None:
        ask = _reserve.decode(data)
        if ask.config_rev > self.world.config_rev_heard:
            return None  # silence: the edge asks again, and by then CONFIG may have come
        return await self._verdict(ask)

    async def _on_extend(self, data: bytes) -> bytes | None:
        return await self._verdict(_extend.decode(data))

    async def _verdict(self, ask: Reserve | Extend) -> bytes:
        answer = await self.tell(ask)
        assert isinstance(answer, Granted | Denied | Queued)
        return encode(Verdict(rid=ask.rid, answer=answer, n=ask.n if isinstance(ask, Extend) else 0))

    async def _on_withdraw(self, data: bytes) -> bytes | None:
        return await self._done(_withdraw.decode(data))

    async def _on_cut(self, data: bytes) -> bytes | None:
        return await self._done(_cut.decode(data))

    async def _done(self, ask: Withdraw | Cut) -> bytes:
        await self.tell(ask)
        return encode(Done(rid=ask.rid, owner_epoch=self.state.owner_epoch))

    async def _on_true_up(self, data: bytes) -> bytes | None:
        self.tell(_true_up.decode(data))
        return None

    async def _on_status(self, data: bytes) -> bytes | None:
        status = _status.decode(data)
        self._presence.heard(status, self.now())
        self._lending.heard(status)
        return None

    # One record at a time; what comes while it is written is decided at once, and waits for the next.

    async def _work(self) -> None:
        ahead: Step | None = None
        while ahead or self._wake.is_set() or self._queue:
            self._wake.clear()
            events, answers = ahead or self._decide()
            early = self.world.mutant == "answered_before_commit"
            if early:
                _answer(answers)
            ahead = await self._written(events) if events else None
            if not early:
                await self.here("about to answer")
                _answer(answers)

    async def _written(self, events: list[LedgerEvent]) -> "Step | None":
        late = self.world.mutant == "record_made_late"
        writing = self.spawn(self._commit(None if late else self._record(events), events))
        writing.add_done_callback(lambda _: self._wake.set())
        ahead: Step | None = None
        while not writing.done():
            await self._wake.wait()
            self._wake.clear()
            if self._queue and ahead is None and not writing.done():
                ahead = self._decide()
        writing.result()  # overtaken: nobody is answered
        if ahead is None:
            self.world.committed(self)
        return ahead

    def _decide(self) -> "Step":
        now, rules = self.now(), company.rules(self.world.config_rev_heard)
        careless = self.world.mutant == "lease_not_charged"
        group = (Careless if careless else Group)(self.state, self._line, rules, SHARD, now)
        events = group.events
        turns.go_on(group)
        answers: list[tuple[asyncio.Future[Answer], Answer]] = []
        scopes: dict[str, None] = {}
        if self.state.config_rev != rules.catalogue.config_rev:
            group.apply(LimitsApplied(config_rev=rules.catalogue.config_rev, at=now))
            turns.weigh_again(group)
            scopes.update(dict.fromkeys(rules.catalogue.by_scope))
        if now - self._last_tick >= MICROS:
            self._last_tick = now
            turns.look_again(group)
            scopes.update(dict.fromkeys(blocks.blocked(self.state)))
        for _ in range(min(GROUP, len(self._queue))):
            command, future = self._queue.popleft()
            before = len(events)
            answer = decide(group, command)
            for event in events[before:]:
                limits = (rules.catalogue.limit(budget_id) for budget_id in touched(event))
                scopes.update((limit.block_scope, None) for limit in limits if limit)
            if future:
                answers.append((future, answer))
        for scope in scopes:
            for decided in blocks.due(self.state, rules, (scope,), now):
                group.apply(decided)
        # late answers are not told: they may be lost, and then the edge hears them when it asks again
        return events, answers

    def _record(self, events: list[LedgerEvent]) -> bytes:
        state = self.state
        return encode(
            Commit(
                shard=SHARD,
                owner_epoch=state.owner_epoch,
                at=self.now(),
                digest=self.digest,
                priced=state.priced,
                events=tuple(events),
            )
        )

    async def _commit(self, record: bytes | None, events: list[LedgerEvent]) -> None:
        """record: None makes it only now, a mutant: what was decided since moves the position that it carries."""
        await self.here("about to commit")
        if record is None:
            await asyncio.sleep(0.01)
            record = self._record(events)
        self.seq = await self._store(record)
        self.digest = hashlib.sha256(record).digest()

    async def _store(self, record: bytes) -> int:
        msg_id = f"{self.name}:{self.seq}"
        while True:
            try:
                return await self.port.append("LEDGER", record, msg_id, self.seq)
            except Unavailable:
                await asyncio.sleep(0.1)
            except Overtaken:
                (last,) = await self.port.persist(lambda: self.port.last("LEDGER"))
                if last and last.data == record:
                    return last.seq
                raise

    # What comes by itself.

    async def _follow_priced(self) -> None:
        """From the position in the ledger; not from what was acknowledged."""
        after = self.state.priced.seq
        acknowledged = self.world.broker.acked
        trusting = self.world.mutant == "ack_is_progress"
        if trusting:
            after = acknowledged.get("owner", 0)
        while True:
            for stored in await self.port.read("PRICED", after):
                after = stored.seq
                self.tell(Close(_priced.decode(stored.data), Position(log_id="p", seq=stored.seq)))
                if trusting:
                    acknowledged["owner"] = after
            await self.here("took priced records")

    async def _watch(self) -> None:
        before = self.now()
        while True:
            await asyncio.sleep(1)
            now = self.now()
            if now - before > STALL_MICROS or not self.port.connected:
                self._presence.spare(now)
            before = now
            self._wake.set()
            forgotten = list(self._presence.forgotten(self.state.holds, now))
            if forgotten:
                await self._expire(forgotten, now)
            await self._lending.settle()

    async def _expire(self, forgotten: list[str], now: int) -> None:
        try:
            under_way = await self._closings_under_way()
        except Unavailable:
            return
        for rid in forgotten:
            hold = self.state.holds.get(rid)
            if hold and not (under_way and now - hold.held.admitted_at < PATIENCE * ABSENT_MICROS):
                self.tell(Expire(rid))

    async def _closings_under_way(self) -> bool:
        (usage,) = await self.port.last("USAGE")
        (priced,) = await self.port.last("PRICED")
        if usage is None:
            return False
        if priced is None or priced.seq > self.state.priced.seq:
            return True
        return usage.seq > _priced.decode(priced.data).usage_at.seq


def _answer(answers: list[tuple["asyncio.Future[Answer]", Answer]]) -> None:
    for future, answer in answers:
        if not future.done():
            future.set_result(answer)
