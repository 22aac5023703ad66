"""Talks with the owner of the shard: asks to hold money, again and again under the same name until it is answered."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog

from services.edge.core.lifecycle import Identity
from shared.bus import Bus
from shared.contracts.budget import (
    BALANCES,
    CUT,
    EXTEND,
    RESERVE,
    TRUEUP,
    WITHDRAW,
    Balances,
    BalancesAsked,
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
from shared.contracts.message import Decoder, encode
from shared.errors import Unavailable

log = structlog.get_logger()

PATIENT_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Deadlines after the first short ones. An owner that is busy must not be buried under repeated questions."""
PAUSE_SECONDS = 0.05  # without responders the broker says no at once; ask again when a new owner may be there
TURN_SECONDS = 2.0  # what is queued asks again this often, so that it keeps its turn through an owner's restart
MOST_QUEUED_SECONDS = 660.0  # no budget lets anybody stand in line for longer than 600
WITHDRAW_SECONDS = 60.0
CUT_SECONDS = 0.5
GRACE_SECONDS = 1.0

_verdict = Decoder(Verdict)
_done = Decoder(Done)
_balances = Decoder(Balances)

Answer = Granted | Denied
Home = Callable[[], "Owner"]
_SUBJECTS = (RESERVE, EXTEND, WITHDRAW, CUT, TRUEUP, BALANCES)


class Owner:
    """One shard's owner, whoever that is now. Answers of an older owner's epoch are ignored."""

    def __init__(
        self,
        bus: Bus,
        me: Identity,
        shard: str,
        *,
        queue_seconds: float = 20.0,
        deadline_ms: int = 50,
        first_tries: int = 3,
    ) -> None:
        self._bus, self._me, self._loop = bus, me, asyncio.get_running_loop()
        self._queue_seconds, self._deadline, self._first_tries = queue_seconds, deadline_ms / 1000, first_tries
        self._subjects = {name: name.format(shard=shard) for name in _SUBJECTS}
        self._epoch = 0
        self._asked: dict[tuple[str, int], asyncio.Future[Answer]] = {}  # (rid, n): late verdicts find their question
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give withdrawals under way a moment."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
        for task in self._tasks:
            task.cancel()

    async def reserve(self, ask: Reserve, *, patient: bool = True, at: "Home | None" = None) -> Answer:
        """Ask until answered.

        patient: a hard budget is on the path, so wait for an owner up to queue_seconds, then withdraw and raise
        Unavailable("budget"). An owner that lets it stand in line is there: it says itself when the time is over. Else
        raise it after the first short deadlines: the caller lets it pass, ungoverned, and its usage record closes what
        the owner may have held.
        Cancelled when the client goes away: the attempt is withdrawn.
        at: whom to ask, looked up for each question; None is always this one.
        """

        def message(waited: float) -> bytes:
            return encode(msgspec.structs.replace(ask, waited_ms=math.ceil(waited * 1000)) if waited else ask)

        try:
            tries = 0 if patient else self._first_tries
            return await self._answer(RESERVE, (ask.rid, 0), message, self._queue_seconds, tries, at)
        except asyncio.CancelledError:
            self.withdraw(ask.rid, ask.principal.org, at=at)
            raise
        except Unavailable:
            if patient:
                self.withdraw(ask.rid, ask.principal.org, at=at)
            raise

    async def extend(self, ask: Extend, *, at: "Home | None" = None) -> Answer:
        """Ask until answered, through any number of owners. Cancel it when the stream is over."""
        data = encode(ask)
        return await self._answer(EXTEND, (ask.rid, ask.n), lambda waited: data, math.inf, at=at)

    async def _answer(
        self,
        subject: str,
        key: tuple[str, int],
        message: Callable[[float], bytes],
        patience: float,
        most_tries: int = 0,
        at: "Home | None" = None,
    ) -> Answer:
        """message: for having waited so long. patience: seconds without an owner. most_tries: 0 for no limit."""
        loop = self._loop
        since = heard = loop.time()
        late: asyncio.Future[Answer] = loop.create_future()
        asked = at() if at else self
        asked._asked[key] = late  # before the question: its late verdict may overtake the answer
        waited, tries = 0.0, 0
        try:
            while True:
                if at and at() is not asked:  # its organisation has moved
                    del asked._asked[key]
                    asked = at()
                    asked._asked[key] = late
                answer = await asked._once(subject, key[0], message(waited), self._deadline_of(tries))
                if isinstance(answer, Queued):
                    heard, tries = loop.time(), -1
                    await self._turn(late, self._queue_seconds - (heard - since))
                    answer = None
                if late.done():
                    return late.result()
                if answer is not None:
                    return answer
                tries += 1
                if most_tries and tries >= most_tries:
                    raise Unavailable("budget")
                # The last question is asked after the whole time, so that an owner can answer it for good.
                if since + waited - heard > patience or waited > max(patience, MOST_QUEUED_SECONDS):
                    raise Unavailable("budget", retry_after_s=2)
                waited = loop.time() - since
        finally:
            del asked._asked[key]

    def _deadline_of(self, tries: int) -> float:
        if tries < self._first_tries:
            return self._deadline
        return PATIENT_SECONDS[min(tries - self._first_tries, len(PATIENT_SECONDS) - 1)]

    async def _once(self, subject: str, rid: str, data: bytes, deadline: float) -> Answer | Queued | None:
        """One question; None when nobody, or an owner that is deposed, answered in time."""
        loop = self._loop
        asked = loop.time()
        try:
            reply = await self._bus.request(self._subjects[subject], data, timeout=deadline)
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

    async def _turn(self, late: "asyncio.Future[Answer]", left_seconds: float) -> None:
        """Stand in line until the verdict comes or it is time to ask again: at the latest when the queue time is over."""
        seconds = min(TURN_SECONDS, left_seconds) if left_seconds > 0 else TURN_SECONDS
        await asyncio.wait({late}, timeout=max(0.01, seconds))

    def waits_for(self, verdict: Verdict) -> bool:
        """Whether this shard's verdict is expected."""
        return (verdict.rid, verdict.n) in self._asked

    def late(self, verdict: Verdict) -> None:
        """The answer to one that stands in line."""
        late = self._asked.get((verdict.rid, verdict.n))
        answer = self._current(verdict, verdict.rid)
        if late and not late.done() and answer is not None and not isinstance(answer, Queued):
            late.set_result(answer)

    def withdraw(self, rid: str, org: str = "", *, at: "Home | None" = None) -> None:
        """The attempt will never be sent. Returns at once and never fails; told to the owner in the background."""
        message = encode(Withdraw(rid=rid, edge=self._me.edge, epoch=self._me.epoch, org=org))
        self._background(self._until_done(WITHDRAW, message, WITHDRAW_SECONDS, at))

    async def cut(self, cut: Cut, *, at: "Home | None" = None) -> bool:
        """Before the error event of a cut stream goes out. False when the owner could not be told in time."""
        return await self._until_done(CUT, encode(cut), CUT_SECONDS, at)

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

    async def _until_done(self, subject: str, message: bytes, seconds: float, at: "Home | None" = None) -> bool:
        """Ask again until the owner has it durably."""
        loop = self._loop
        end = loop.time() + seconds
        tries = 0
        while (left := end - loop.time()) > 0:
            asked = loop.time()
            deadline, owner = min(left, self._deadline_of(tries)), at() if at else self
            try:
                done = _done.decode(await self._bus.request(owner._subjects[subject], message, timeout=deadline))
            except Unavailable:
                await asyncio.sleep(max(0.0, min(deadline, PAUSE_SECONDS * (tries + 1)) - (loop.time() - asked)))
                tries += 1
                continue
            owner._epoch = max(owner._epoch, done.owner_epoch)
            return True
        return False

    def _background(self, work: Coroutine[Any, Any, bool]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
