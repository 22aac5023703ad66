"""From the spool to the broker: in order, until acknowledged, whatever the broker goes through."""

import asyncio
from contextlib import suppress

import msgspec
import structlog

from services.edge.stores.outbox import ALONE, Pending
from services.edge.stores.spool import Spool, SpoolFailed
from shared.bus import Bus, Record
from shared.contracts.edge import REQUEST_COMPLETED, USAGE_RECORDED
from shared.contracts.message import bundle

log = structlog.get_logger()

GATHER_SECONDS = 0.02  # nobody waits for them, and many as one message cost everybody less than one after the other
MOST_BYTES = 128 * 1024  # of a bundle; what becomes of it further on is longer, and a message may have 1 MiB
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
        left = self._bundled(window)
        if not window[0].company and len(left) < len(window):
            with suppress(SpoolFailed):
                await self._spool.departing(window)
        while left:
            stored = await self._bus.append_all(left)
            left = [record for record, good in zip(left, stored, strict=True) if not good]
            if left:
                log.info("edge.publish_retried", messages=len(left), tries=tries)
                await asyncio.sleep(PATIENCE_SECONDS[min(tries, len(PATIENCE_SECONDS) - 1)])
                tries += 1

    def _bundled(self, window: list[Pending]) -> list[Record]:
        """As few messages as their sizes allow, each subject's in order. The message id makes asking again harmless."""
        filling: dict[str, _Bundle] = {}
        full: list[_Bundle] = []
        for pending in window:
            subject = USAGE_RECORDED.format(shard=pending.shard) if pending.kind == "usage" else REQUEST_COMPLETED
            data = self._spool.outbox.data(pending)
            now = filling.get(subject)
            if now is None or now.size + len(data) > MOST_BYTES or pending.company == ALONE:
                now = filling[subject] = _Bundle(subject, pending.message_id)
                full.append(now)
            now.messages.append(data)
            now.size += len(data)
        return [Record(each.subject, bundle(each.messages), each.id) for each in full]


class _Bundle(msgspec.Struct):
    """first: the id of its first message."""

    subject: str
    first: str
    messages: list[bytes] = []
    size: int = 0

    @property
    def id(self) -> str:
        return self.first if len(self.messages) == 1 else f"{self.first}+{len(self.messages)}"
