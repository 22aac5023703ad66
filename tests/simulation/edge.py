"""An edge, small: asks, writes down, sends, relays, closes, publishes. Its records are built by the real core."""

import asyncio
import math

import msgspec

from services.edge.core import lifecycle
from services.edge.core.journal import Dropped, Progressed, Started
from services.edge.core.lifecycle import Context, Ending
from services.edge.core.usage import Usage
from shared.contracts.budget import (
    CUT,
    EXTEND,
    RESERVE,
    TRUEUP,
    WITHDRAW,
    Cut,
    Denied,
    Extend,
    Granted,
    Queued,
    Reserve,
    TrueUp,
    Verdict,
    Withdraw,
)
from shared.contracts.edge import EdgeStatus, Line, UsageRecorded
from shared.contracts.message import Decoder, Message, encode
from shared.errors import Unavailable
from tests.fixtures.budget import MODEL
from tests.simulation import company
from tests.simulation.clock import MICROS
from tests.simulation.disk import Disk, Spool
from tests.simulation.lending import Borrower
from tests.simulation.provider import Call, Work
from tests.simulation.world import SHARD, Process, World

DEADLINES = (0.05, 0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
PATIENCE_SECONDS = 6.0  # for an owner; shorter than in the product, so that giving up happens often
STATUS_SECONDS = 10.0
STEPS = 4  # looks at an answer under way
_verdict = Decoder(Verdict)


class Request(msgspec.Struct, frozen=True):
    """What a client wants, and for how long it stays. unreachable: the first provider address does not connect."""

    name: str
    key: str
    text_bytes: int
    max_tokens: int
    stream: bool
    stays_micros: int
    work: Work
    session: str = ""
    unreachable: bool = False
    extends: bool = False


class Edge(Process):
    """One worker."""

    def __init__(self, world: World, disk: Disk) -> None:
        super().__init__(world, disk.edge)
        self.disk = disk
        self.spool = Spool(world, disk)
        self._owner_epoch = 0
        self._borrower = Borrower(self) if world.rng.random() < 0.6 else None

    async def run(self) -> None:
        self.spawn(self._publish())
        if self._borrower:
            self.spawn(self._borrower.run())
        while True:
            self._tell_status()
            await asyncio.sleep(STATUS_SECONDS)

    def kill(self, how: str) -> None:
        """A process dies alone or with its machine."""
        if self.alive and self.world.rng.random() < 0.4:
            super().kill(f"{how}, without power")
            self.disk.power_cut(self.world)
        super().kill(how)

    def _tell_status(self) -> None:
        me = self.spool.identity
        delivered = 0 if self.spool.inherited else me.epoch - 1
        live, now = tuple(self.spool.live), self.world.now()
        status = EdgeStatus(edge=me.edge, epoch=me.epoch, at=now, live=live, delivered_epoch=delivered)
        self.port.publish("edge.status", encode(status))

    async def _publish(self) -> None:
        """A window at a time; what failed again before anything newer, under the same id."""
        while True:
            window = self.spool.publishable(8)
            if not window:
                await self.spool.arrived.wait()
                await asyncio.sleep(0.002)
                continue
            left = window
            while left:
                stored = await asyncio.gather(*(self._store(usage) for usage in left))
                left = [usage for usage, good in zip(left, stored, strict=True) if not good]
                if left:
                    await asyncio.sleep(0.1)
            self.spool.acked(len(window))
            await self.here("published")

    async def _store(self, usage: UsageRecorded) -> bool:
        try:
            await self.port.append("USAGE", encode(usage), f"{usage.rid}:{usage.kind}")
        except Unavailable:
            return False
        return True

    # One client request.

    async def serve(self, request: Request) -> None:
        first = await self._attempt(request, 1, "")
        if first:
            await self._attempt(request, 2, first)

    async def _attempt(self, request: Request, number: int, replaces: str) -> str:
        """Returns the rid when the next attempt may replace it."""
        rid = f"{request.name}.{number}"
        context = self._context(request)
        started = lifecycle.started(context, rid, number, company.ATTEMPT)
        ask = lifecycle.reserve(context, rid, number, company.ATTEMPT, replaces)
        self.spool.write(started)
        await self.here(f"{rid} started")
        written = self.spawn(self.spool.synced())
        granted = await self._admitted(ask, request)
        await written
        await self.here(f"{rid} answered {type(granted).__name__}")
        if isinstance(granted, Denied):
            self.spool.write(Dropped(rid=rid))
            return ""
        gone = self.world.rng.random() < 0.05
        if (granted is None and company.is_hard(request.key)) or gone:
            if gone:
                self.spawn(self._until_done(WITHDRAW, self._withdraw(rid), 60))
            await self._end(lifecycle.voided(started, granted, self.world.now()))
            return ""
        if request.unreachable and number == 1:
            self.spawn(self._end(lifecycle.voided(started, granted, self.world.now())))
            return rid
        await self._send(request, started, granted)
        return ""

    def _context(self, request: Request) -> Context:
        return Context(
            me=self.spool.identity,
            request_id=request.name,
            received_at=self.world.now(),
            config_rev=self.world.config_rev,
            principal=company.principal(request.key),
            facts=company.facts(request.text_bytes, request.max_tokens, request.stream, request.session),
        )

    def _withdraw(self, rid: str) -> Message:
        return Withdraw(rid=rid, edge=self.spool.identity.edge, epoch=self.spool.identity.epoch)

    async def _admitted(self, ask: Reserve, request: Request) -> Granted | Denied | None:
        """The verdict; None when no owner answered in time: then it is withdrawn, or ungoverned."""
        hard, since = company.is_hard(request.key), self.world.now()
        if hard and self._borrower and (drawn := self._borrower.draw(ask)):
            self._borrower.admitted(ask)
            return drawn
        tries = 0
        while True:
            waited = self.world.now() - since
            data = encode(msgspec.structs.replace(ask, waited_ms=math.ceil(waited / 1_000)))
            answer = await self._once(RESERVE, data, ask.rid, DEADLINES[min(tries, len(DEADLINES) - 1)])
            if isinstance(answer, Granted | Denied):
                if hard and self._borrower and isinstance(answer, Granted):
                    self._borrower.admitted(ask)
                self.world.seen[f"denied {answer.reason}" if isinstance(answer, Denied) else "granted"] += 1
                return answer
            tries += 1
            if isinstance(answer, Queued):
                await asyncio.sleep(1)
            elif not hard and tries >= 3:
                return None
            if waited > PATIENCE_SECONDS * MICROS:
                if hard:
                    self.spawn(self._until_done(WITHDRAW, self._withdraw(ask.rid), 60))
                return None

    async def _once(self, subject: str, data: bytes, rid: str, deadline: float) -> Granted | Denied | Queued | None:
        try:
            reply = await self.port.request(subject.format(shard=SHARD), data, deadline)
        except Unavailable:
            await asyncio.sleep(0.05)
            return None
        verdict = _verdict.decode(reply)
        if verdict.rid != rid or verdict.answer.owner_epoch < self._owner_epoch:
            return None
        self._owner_epoch = verdict.answer.owner_epoch
        return verdict.answer

    async def _until_done(self, subject: str, message: Message, seconds: float) -> None:
        end = self.world.now() + seconds * MICROS
        while self.world.now() < end:
            try:
                await self.port.request(subject.format(shard=SHARD), encode(message), 0.2)
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                return

    async def _send(self, request: Request, started: Started, granted: Granted | None) -> None:
        rid, now = started.usage.rid, self.world.now()
        held = lifecycle.sent(started, granted, now)
        self.spool.write(held)
        await self.here(f"{rid} to be sent")
        self.world.check_sent(rid, granted, request.key)
        call = self.world.provider.take(rid, request.work, self)
        await self.here(f"{rid} sent")
        outcome = await self._relay(request, call, granted)
        finished = self.world.now()
        call.close(finished, 30_000)
        usage = _usage(call, finished, outcome)
        await self.here(f"{rid} {outcome}")
        record = lifecycle.settled(held, usage, Ending(outcome=outcome, closed_at=finished))
        await self._end(record)
        if outcome == "ok":
            self.world.released[rid] = self.world.provider.bill[rid]
        await self.here(f"{rid} released")

    async def _end(self, record: UsageRecorded) -> None:
        self.spool.end(record)
        synced = self.spawn(self.spool.synced())
        if self.world.mutant != "end_not_synced":
            await synced

    async def _relay(self, request: Request, call: Call, granted: Granted | None) -> str:
        """How it ended: ok, upstream_error, upstream_broken, client_gone, cut."""
        leaves = self.world.now() + request.stays_micros
        if not await self._until(call.begins, leaves):
            return "client_gone"
        if request.work.fate == "refuses":
            return "upstream_error"
        self._seen(call, granted)
        most = granted.held_output_tokens if granted else request.max_tokens
        extensions = 0
        for step in range(1, STEPS + 1):
            at = call.begins + (call.ends - call.begins) * step // STEPS
            if not await self._until(at, leaves):
                return "client_gone"
            made = call.output(self.world.now())
            if (
                granted and request.extends and (made > most or step == 1)
            ):  # some ask early, some for more than they need
                extensions += 1
                most += await self._extend(call.rid, extensions)
            if made > most:
                await self._cut(request, call, granted)
                return "cut"
            self.spool.write(Progressed(rid=call.rid, lines=_lines(call, made)))
        return "upstream_broken" if request.work.fate == "breaks" else "ok"

    async def _until(self, at: int, leaves: int) -> bool:
        """Wait; False when the client left first."""
        await asyncio.sleep(max(0, min(at, leaves) - self.world.now()) / MICROS)
        await self.here("waited")
        return at <= leaves

    def _seen(self, call: Call, granted: Granted | None) -> None:
        """message_start."""
        self.spool.write(Progressed(rid=call.rid, lines=_lines(call, 0)))
        if granted:
            told = TrueUp(rid=call.rid, input_tokens=call.work.input_tokens, nano_usd=0)
            self.port.publish(TRUEUP.format(shard=SHARD), encode(told))

    async def _extend(self, rid: str, n: int) -> int:
        """More output tokens, 0 when refused or unanswered."""
        data = encode(Extend(rid=rid, n=n, output_tokens=1_000))
        for _ in range(4):
            answer = await self._once(EXTEND, data, rid, 0.2)
            if isinstance(answer, Granted):
                return answer.held_output_tokens
            if isinstance(answer, Denied):
                return 0
        return 0

    async def _cut(self, request: Request, call: Call, granted: Granted | None) -> None:
        call.close(self.world.now(), 30_000)
        cut = Cut(
            rid=call.rid,
            budget_id=granted.limited_by if granted else "",
            principal=company.principal(request.key),
            session=request.session,
            body_digest=bytes(32),
        )
        await self._until_done(CUT, cut, 0.5)


def _lines(call: Call, output_tokens: int) -> tuple[Line, ...]:
    return (
        Line(meter="input", quantity=call.work.input_tokens, model=MODEL),
        Line(meter="output", quantity=output_tokens, model=MODEL),
    )


def _usage(call: Call, now: int, outcome: str) -> Usage:
    """What the answer has shown: exact when it came to its end, else what was seen passing."""
    if outcome == "upstream_error":
        return Usage()
    return Usage(lines=_lines(call, call.output(now)), estimated=outcome != "ok")
