"""From the spool to the broker: in order, until acknowledged, whatever the broker goes through."""

import asyncio

import structlog

from services.edge.stores.outbox import Pending
from services.edge.stores.spool import Spool
from shared.bus import Bus, Record
from shared.contracts.edge import REQUEST_COMPLETED, USAGE_RECORDED

log = structlog.get_logger()

GATHER_SECONDS = 0.005  # nobody waits for them, and many at once cost the broker and us less than one after the other
PATIENCE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)


class Publisher:
    """Moves one window of records at a time; what failed is sent again before anything newer, under the same id."""

    def __init__(self, bus: Bus, spool: Spool, window_records: int = 64) -> None:
        self._bus, self._spool, self._window = bus, spool, window_records

    async def run(self) -> None:
        """For ever; start it as a task."""
        while True:
            window = await self._spool.outbox.next(self._window)
            await self._publish(window)
            self._spool.acked(len(window))
            if len(window) < self._window:
                await asyncio.sleep(GATHER_SECONDS)

    async def flush(self) -> None:
        """Return once the broker has everything; `run` must be running."""
        await self._spool.outbox.emptied()

    async def _publish(self, window: list[Pending]) -> None:
        tries = 0
        while window:
            stored = await self._bus.append_all([self._record(pending) for pending in window])
            window = [pending for pending, good in zip(window, stored, strict=True) if not good]
            if window:
                log.info("edge.publish_retried", records=len(window), tries=tries)
                await asyncio.sleep(PATIENCE_SECONDS[min(tries, len(PATIENCE_SECONDS) - 1)])
                tries += 1

    def _record(self, pending: Pending) -> Record:
        """The message id makes asking again harmless."""
        subject = USAGE_RECORDED.format(shard=pending.shard) if pending.kind == "usage" else REQUEST_COMPLETED
        return Record(subject, self._spool.outbox.data(pending), pending.message_id)
