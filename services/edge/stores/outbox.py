"""Records on their way to the broker, in spool order."""

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Literal

import msgspec

from services.edge.stores.segment import Place
from services.edge.stores.segment_log import SegmentLog
from shared.telemetry import edge_spool_acknowledged

ALONE = 1
"""If it left at all, it was in no company: only those of a bundle are written down before they leave."""
KEPT_IN_MEMORY = 10_000  # records beyond it are read back from their file when the broker returns


class Pending(msgspec.Struct, kw_only=True):
    """A record to publish. place None: only memory has it. data None: only the file has it. shard: of a usage record.

    company: 0, or of what a process before has left: with how many it was to leave for the broker, itself included.
    """

    kind: Literal["usage", "request"]
    message_id: str
    place: Place | None
    data: bytes | None
    shard: str = ""
    company: int = 0


class Outbox:
    """First in, first out. Knows of each segment how much of it the broker does not have yet."""

    def __init__(self, log: SegmentLog) -> None:
        self._log = log
        self._waiting: deque[Pending] = deque()
        self._unacked: dict[int, int] = {}
        self._arrived, self._emptied = asyncio.Event(), asyncio.Event()
        self._emptied.set()
        self.acked: Place | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Pending]:
        """Oldest first."""
        return iter(self._waiting)

    def add(self, pending: Pending) -> None:
        if pending.place is not None:
            self._unacked[pending.place.segment] = self._unacked.get(pending.place.segment, 0) + 1
            if len(self._waiting) >= KEPT_IN_MEMORY:
                pending.data = None
        self._waiting.append(pending)
        self._arrived.set()
        self._emptied.clear()

    async def next(self, most: int) -> list[Pending]:
        """Wait for records; the oldest ones that may leave together, new ones at most so many. They stay until `done`."""
        await self._arrived.wait()
        company = self._waiting[0].company
        if company > ALONE:
            return list(islice(self._waiting, company))
        window = islice(self._waiting, most)
        return list(takewhile(lambda pending: pending.company == company, window))

    async def emptied(self) -> None:
        """Return once nothing waits."""
        await self._emptied.wait()

    def data(self, pending: Pending) -> bytes:
        """The message to publish. Blocks shortly when it has to be read back."""
        if pending.data is None:
            assert pending.place is not None
            return self._log.read(pending.place)[1:]  # without the mark of its kind
        return pending.data

    def done(self, count: int) -> None:
        """The broker has acknowledged the oldest `count`."""
        for _ in range(count):
            pending = self._waiting.popleft()
            if pending.place is not None:
                self._unacked[pending.place.segment] -= 1
                self.acked = pending.place
        edge_spool_acknowledged.inc(count)
        if not self._waiting:
            self._arrived.clear()
            self._emptied.set()

    def clean(self, segment: int) -> bool:
        """The broker has everything of this segment."""
        return not self._unacked.get(segment)

    def forget(self, segment: int) -> None:
        self._unacked.pop(segment, None)
