"""Tells every edge who may not spend, until each has said that it knows; and the console what changed."""

import asyncio
from collections.abc import Coroutine

import msgspec
import structlog

from services.budget.core.group import Late
from services.budget.core.presence import Presence
from services.budget.stores import keep_decision
from shared.bus import Bus
from shared.clock import Clock
from shared.contracts.budget import CHANGED, Changed, Decision, Verdict
from shared.contracts.edge import EDGE_DECISION, EDGE_VERDICT, DecisionAck
from shared.contracts.message import Decoder, UnknownVersion, encode
from shared.errors import Unavailable
from shared.service import end

log = structlog.get_logger()

RETRY_SECONDS = 0.2
_ack = Decoder(DecisionAck)


class Herald:
    """One task for each edge, so that a slow one delays no other, and one for DECISIONS.

    Only the newest decision of a scope is worth telling; an older one that waits is replaced.
    """

    def __init__(self, bus: Bus, presence: Presence, clock: Clock, shard: str, ack_seconds: float) -> None:
        self._bus = bus
        self._presence = presence
        self._clock = clock
        self._changed_subject = CHANGED.format(shard=shard)
        self._ack_seconds = ack_seconds
        self._waiting: dict[str, dict[str, Decision]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._side: set[asyncio.Task[None]] = set()
        self._to_keep: dict[str, Decision] = {}
        self._keep = asyncio.Event()

    def decide(self, decisions: list[Decision]) -> None:
        """Tell every edge there is, and whoever comes later."""
        self._to_keep.update((decision.scope, decision) for decision in decisions)
        self._keep.set()
        for edge in self._presence.edges(self._clock()):
            self.tell(edge, decisions)

    def tell(self, edge: str, decisions: list[Decision]) -> None:
        """One edge, until it acknowledges or is gone."""
        if not decisions:
            return
        self._waiting.setdefault(edge, {}).update((decision.scope, decision) for decision in decisions)
        if edge not in self._tasks:
            self._tasks[edge] = asyncio.create_task(self._tell(edge))

    @property
    def lagging(self) -> tuple[str, ...]:
        """Edges that have a decision which they have not acknowledged."""
        return tuple(sorted(edge for edge, waiting in self._waiting.items() if waiting))

    async def _tell(self, edge: str) -> None:
        waiting = self._waiting[edge]
        subject = EDGE_DECISION.format(edge=edge)
        while waiting:
            scope, decision = next(iter(waiting.items()))
            try:
                ack = _ack.decode(await self._bus.request(subject, encode(decision), timeout=self._ack_seconds))
            except (Unavailable, UnknownVersion, msgspec.DecodeError):  # an answer we cannot read is none
                if not self._presence.lives(edge, self._clock()):
                    log.info("budget.edge_gone", edge=edge, decisions=len(waiting))
                    waiting.clear()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if waiting.get(scope) is decision and ack.version >= decision.version:
                del waiting[scope]
        del self._waiting[edge], self._tasks[edge]  # at once: what is told from now on needs a new task

    async def keep(self) -> None:
        """Write decisions to DECISIONS; start it as a task, it runs for ever."""
        while True:
            await self._keep.wait()
            self._keep.clear()
            while self._to_keep:
                scope, decision = next(iter(self._to_keep.items()))
                try:
                    await keep_decision(self._bus, decision)
                except Unavailable:
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if self._to_keep.get(scope) is decision:
                    del self._to_keep[scope]

    def tell_late(self, late: list[Late]) -> None:
        """The answers to who was told to wait. May be lost: an edge asks again, and then hears it."""
        self._aside(self._late(late))

    async def _late(self, late: list[Late]) -> None:
        for each in late:
            verdict = encode(Verdict(rid=each.rid, answer=each.answer, n=each.n))
            try:
                await self._bus.publish(EDGE_VERDICT.format(edge=each.edge), verdict)
            except Unavailable:
                log.info("budget.verdict_not_published", rid=each.rid)

    def change(self, changes: list[Changed]) -> None:
        """For consoles; may be lost."""
        self._aside(self._change(changes))

    async def _change(self, changes: list[Changed]) -> None:
        try:
            for change in changes:
                await self._bus.publish(self._changed_subject, encode(change))
        except Unavailable:
            log.info("budget.change_not_published", changes=len(changes))

    def _aside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._side.add(task)
        task.add_done_callback(self._side.discard)

    async def close(self) -> None:
        await end(*self._tasks.values(), *self._side)
