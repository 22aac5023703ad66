"""This worker's place among the edges: it tells that it lives and what is in flight, and learns who may not spend."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import nats.errors
import nats.js.errors
import structlog

from services.edge.core.blocks import Blocks
from services.edge.core.lifecycle import Identity
from shared import clock
from shared.bus import Bus
from shared.contracts.attribution import Principal
from shared.contracts.budget import Decision, Denied
from shared.contracts.edge import EDGE_DECISION, EDGE_STATUS, DecisionAck, EdgeStatus
from shared.contracts.message import Decoder, encode
from shared.contracts.streams import DECISIONS, EDGES
from shared.errors import Unavailable

log = structlog.get_logger()

_decision = Decoder(Decision)

BEATS_MISSED = 3
"""After so many heartbeats without a word of the broker, what has been decided meanwhile counts as not known."""
CATCH_UP_SECONDS = 1.0


class Presence:
    """live, config_rev, spool_records, delivered_epoch: asked for at each heartbeat.

    caught_up: returns once all that CONFIG holds is known here.
    """

    def __init__(
        self,
        bus: Bus,
        me: Identity,
        *,
        live: Callable[[], tuple[str, ...]],
        config_rev: Callable[[], int],
        spool_records: Callable[[], int],
        delivered_epoch: Callable[[], int],
        caught_up: Callable[[], Awaitable[None]],
        interval_seconds: float = 10.0,
        now: clock.Clock = clock.now,
    ) -> None:
        self._bus, self._me, self._now = bus, me, now
        self._live, self._config_rev, self._spool_records = live, config_rev, spool_records
        self._delivered_epoch, self._caught_up = delivered_epoch, caught_up
        self._interval, self._loop = interval_seconds, asyncio.get_running_loop()
        self._read_at = -math.inf
        self._blocks = Blocks()
        self._changed = asyncio.Event()
        self._draining = False

    async def open(self) -> None:
        """Subscribe first, then read what was decided before, then register: nothing falls in between."""
        await self._bus.subscribe(EDGE_DECISION.format(edge=self._me.edge), self._on_decision)
        await self._learn()

    async def run(self) -> None:
        """The heartbeat; for ever. Decisions are read anew each time, for what a lost connection may have missed."""
        refresh_at = self._loop.time() + self._interval  # however often something changes
        while True:
            await self._beat()
            try:
                async with asyncio.timeout_at(refresh_at):
                    await self._changed.wait()
            except TimeoutError:
                await self._refresh()
                refresh_at = self._loop.time() + self._interval
            self._changed.clear()

    def blocked(self, principal: Principal) -> Denied | None:
        """The refusal to give without asking, where the owner has blocked a scope of this path."""
        return self._blocks.denied(principal, self._now())

    @property
    def current(self) -> bool:
        """Whether this worker would have heard of a block or a revoked key: not long ago it knew all there was."""
        return self._loop.time() - self._read_at < BEATS_MISSED * self._interval

    def changed(self) -> None:
        """Beat now: something that others wait for is different."""
        self._changed.set()

    def drain(self) -> None:
        """Tell the others that this worker takes no new requests."""
        self._draining = True
        self.changed()

    async def close(self) -> None:
        """Sign off: nobody needs to push decisions to a worker that is gone."""
        try:
            await self._bus.publish(EDGE_STATUS.format(edge=self._me.edge), encode(self._status()))
            await (await self._bus.bucket(EDGES)).delete(self._me.edge)
        except (Unavailable, nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError):
            log.info("edge.not_signed_off")

    def _status(self) -> EdgeStatus:
        return EdgeStatus(
            edge=self._me.edge,
            epoch=self._me.epoch,
            at=self._now(),
            config_rev=self._config_rev(),
            decision_version=self._blocks.version,
            live=self._live(),
            spool_records=self._spool_records(),
            draining=self._draining,
            delivered_epoch=self._delivered_epoch(),
        )

    async def _beat(self) -> None:
        try:
            await self._bus.publish(EDGE_STATUS.format(edge=self._me.edge), encode(self._status()))
        except Unavailable:
            log.debug("edge.heartbeat_lost")

    async def _on_decision(self, data: bytes) -> bytes:
        decision = _decision.decode(data)
        if self._blocks.apply(decision):
            log.info("edge.decision_applied", scope=decision.scope, state=decision.state, version=decision.version)
        return encode(DecisionAck(edge=self._me.edge, version=decision.version))

    async def _refresh(self) -> None:
        try:
            await self._learn()
        except Unavailable:
            log.debug("edge.refresh_skipped")

    async def _learn(self) -> None:
        """All that has been decided and set. What came while we looked may be missing, so it counts from before."""
        began = self._loop.time()
        await self._read_decisions()
        await self._register()
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._caught_up()
        except TimeoutError:
            log.info("edge.config_behind", config_rev=self._config_rev())
        else:
            self._read_at = began

    async def _register(self) -> None:
        try:
            await (await self._bus.bucket(EDGES)).put(self._me.edge, encode(self._status()))
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            raise Unavailable("bus") from error

    async def _read_decisions(self) -> None:
        """The last decision of every scope."""
        for value in (await self._bus.values(DECISIONS)).values():
            self._blocks.apply(_decision.decode(value))
