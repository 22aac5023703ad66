"""Talks with the owner of the shard: asks to hold money, again and again under the same rid until it is answered."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import msgspec
import structlog

from services.edge.core.lifecycle import Identity
from shared.bus import Bus
from shared.contracts.budget import (
    BALANCES,
    CUT,
    RESERVE,
    TRUEUP,
    WITHDRAW,
    Balances,
    BalancesAsked,
    Cut,
    Denied,
    Done,
    Granted,
    Queued,
    Reserve,
    TrueUp,
    Verdict,
    Withdraw,
)
from shared.contracts.edge import EDGE_VERDICT
from shared.contracts.message import Decoder, encode
from shared.errors import Unavailable

log = structlog.get_logger()

PATIENT_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Deadlines after the first short ones. An owner that is busy must not be buried under repeated questions."""
PAUSE_SECONDS = 0.05  # without responders the broker says no at once; ask again when a new owner may be there
TURN_SECONDS = 2.0  # a queued attempt asks again this often, so that it keeps its turn through an owner's restart
WITHDRAW_SECONDS = 60.0
CUT_SECONDS = 0.5
GRACE_SECONDS = 1.0

_verdict = Decoder(Verdict)
_done = Decoder(Done)
_balances = Decoder(Balances)

Answer = Granted | Denied


class Owner:
    """One shard's owner, whoever that is now. Answers of an older owner's epoch are ignored."""

    def __init__(
        self,
        bus: Bus,
        me: Identity,
        *,
        queue_seconds: float = 20.0,
        deadline_ms: int = 50,
        first_tries: int = 3,
    ) -> None:
        self._bus, self._me = bus, me
        self._queue_seconds, self._deadline, self._first_tries = queue_seconds, deadline_ms / 1000, first_tries
        self._subjects = {name: name.format(shard=me.shard) for name in (RESERVE, WITHDRAW, CUT, TRUEUP, BALANCES)}
        self._epoch = 0
        self._queued: dict[str, asyncio.Future[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen for late verdicts."""
        await self._bus.subscribe(EDGE_VERDICT.format(edge=self._me.edge), self._on_verdict)

    async def close(self) -> None:
        """Give withdrawals under way a moment."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()

    async def reserve(self, ask: Reserve, *, patient: bool = True) -> Answer:
        """Ask until answered.

        patient: a hard budget is on the path, so wait for an owner up to queue_seconds, then withdraw and raise
        Unavailable("budget"). Else raise it after the first short deadlines: the caller lets it pass, ungoverned,
        and its usage record closes what the owner may have held.
        Cancelled when the client goes away: the attempt is withdrawn.
        """
        asking = asyncio.get_running_loop().time()
        try:
            return await self._ask(ask, asking, patient)
        except asyncio.CancelledError:
            self.withdraw(ask.rid)
            raise
        except Unavailable:
            if patient:
                self.withdraw(ask.rid)
            raise
        finally:
            self._queued.pop(ask.rid, None)

    async def _ask(self, ask: Reserve, since: float, patient: bool) -> Answer:
        loop = asyncio.get_running_loop()
        data, tries = encode(ask), 0
        while True:
            waited = loop.time() - since
            if tries:
                data = encode(msgspec.structs.replace(ask, waited_ms=math.ceil(waited * 1000)))
            answer = await self._once(ask.rid, data, self._deadline_of(tries))
            if isinstance(answer, Queued):
                answer = await self._turn(ask.rid, self._queue_seconds - waited)
            if answer is not None:
                return answer
            tries += 1
            if not patient and tries >= self._first_tries:
                raise Unavailable("budget")
            # The last question is asked after the whole time, so that an owner can answer it for good.
            if waited > self._queue_seconds:
                raise Unavailable("budget", retry_after_s=2)

    def _deadline_of(self, tries: int) -> float:
        if tries < self._first_tries:
            return self._deadline
        return PATIENT_SECONDS[min(tries - self._first_tries, len(PATIENT_SECONDS) - 1)]

    async def _once(self, rid: str, data: bytes, deadline: float) -> Answer | Queued | None:
        """One question; None when nobody, or an owner that is deposed, answered in time."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            reply = await self._bus.request(self._subjects[RESERVE], data, timeout=deadline)
        except Unavailable:
            await asyncio.sleep(max(0.0, min(PAUSE_SECONDS, deadline) - (loop.time() - asked)))
            return None
        return self._current(_verdict.decode(reply), rid)

    def _current(self, verdict: Verdict, rid: str) -> Answer | Queued | None:
        """The answer, unless it is an older owner's or about something else."""
        if verdict.rid != rid or verdict.answer.owner_epoch < self._epoch:
            return None
        self._epoch = verdict.answer.owner_epoch
        return verdict.answer

    async def _turn(self, rid: str, left_seconds: float) -> Answer | None:
        """Wait in line for the verdict; None when it is time to ask again."""
        future = self._queued.setdefault(rid, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(max(0.01, min(TURN_SECONDS, left_seconds))):
                return await asyncio.shield(future)
        except TimeoutError:
            return None

    async def _on_verdict(self, data: bytes) -> None:
        verdict = _verdict.decode(data)
        future = self._queued.get(verdict.rid)
        answer = self._current(verdict, verdict.rid)
        if future and not future.done() and answer is not None and not isinstance(answer, Queued):
            future.set_result(answer)

    def withdraw(self, rid: str) -> None:
        """The attempt will never be sent. Returns at once and never fails; told to the owner in the background."""
        message = encode(Withdraw(rid=rid, edge=self._me.edge, epoch=self._me.epoch))
        self._background(self._until_done(WITHDRAW, message, WITHDRAW_SECONDS))

    async def cut(self, cut: Cut) -> bool:
        """Before the error event of a cut stream goes out. False when the owner could not be told in time."""
        return await self._until_done(CUT, encode(cut), CUT_SECONDS)

    async def true_up(self, rid: str, input_tokens: int, nano_usd: int) -> None:
        """The provider has counted the input; may be lost. nano_usd 0: the owner prices it."""
        try:
            await self._bus.publish(
                self._subjects[TRUEUP], encode(TrueUp(rid=rid, input_tokens=input_tokens, nano_usd=nano_usd))
            )
        except Unavailable:
            log.debug("edge.true_up_lost", rid=rid)

    async def balances(self, asked: BalancesAsked) -> Balances:
        """Raises Unavailable("budget")."""
        try:
            return _balances.decode(await self._bus.request(self._subjects[BALANCES], encode(asked)))
        except Unavailable as error:
            raise Unavailable("budget") from error

    async def _until_done(self, subject: str, message: bytes, seconds: float) -> bool:
        """Ask again until the owner has it durably."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        tries = 0
        while (left := end - loop.time()) > 0:
            asked = loop.time()
            deadline = min(left, self._deadline_of(tries))
            try:
                done = _done.decode(await self._bus.request(self._subjects[subject], message, timeout=deadline))
            except Unavailable:
                await asyncio.sleep(max(0.0, min(deadline, PAUSE_SECONDS * (tries + 1)) - (loop.time() - asked)))
                tries += 1
                continue
            self._epoch = max(self._epoch, done.owner_epoch)
            return True
        return False

    def _background(self, work: Coroutine[Any, Any, bool]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
