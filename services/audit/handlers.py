"""Follows what decides and what changes, and writes it down page by page."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial

import msgspec
import structlog

from services.audit.core.chain import Read, Tail, pages
from services.audit.core.entries import ConfigChanges, log_replaced, of_commit, of_request
from services.audit.settings import Settings
from services.audit.stores import Chain
from shared import telemetry
from shared.bus import AT_LEISURE_SECONDS, Bus, Stored
from shared.bus.behind import tell_behind
from shared.clock import Clock
from shared.contracts.audit import AuditEntry
from shared.contracts.config import ConfigChanged
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Commit
from shared.contracts.message import Decoder
from shared.contracts.streams import CONFIG, LEDGER, REQUESTS, STREAMS, Position
from shared.service import side_by_side

log = structlog.get_logger()

SOURCES = (LEDGER, REQUESTS, CONFIG)
WAITING = 20  # lists of messages read ahead

_commit = Decoder(Commit)
_completed = Decoder(RequestCompleted)
_changed = Decoder(ConfigChanged)

Convert = Callable[[bytes, int], tuple[AuditEntry, ...] | None]
"""(message, sequence) -> its entries; None: not yet to be counted as read."""


class Recorder:
    """One per chain. The chain itself is the record of progress: what a page says was read is read no more."""

    def __init__(self, bus: Bus, settings: Settings, clock: Clock) -> None:
        self._bus, self._settings, self._clock = bus, settings, clock
        self._chain = Chain(bus, settings.chain)
        self._queue: asyncio.Queue[list[Read]] = asyncio.Queue(WAITING)
        self._tail = Tail()
        self._written: dict[tuple[str, int], int] = {}
        self._config = ConfigChanges()
        self.started = asyncio.Event()

    async def run(self) -> None:
        """For ever. Raises Overtaken when another audit writes this chain."""
        self._tail, self._written = await self._chain.resume()
        replaced = await self._check_logs()
        self.started.set()
        await side_by_side(
            self._write(replaced),
            *(self._read(source) for source in SOURCES),
            *(tell_behind(self._bus, "audit", source, partial(self._read_up_to, source)) for source in SOURCES),
        )

    async def _check_logs(self) -> list[Read]:
        """A log that is another one than before is read from its beginning, and that is told in the chain."""
        replaced: list[Read] = []
        read = dict(self._tail.read)
        for source in SOURCES:
            now, before = await self._bus.end(source), read.get(source, Position())
            if before.log_id not in ("", now.log_id):
                log.error("audit.log_replaced", source=source, covered=before.seq)
                entry = log_replaced(source, before.log_id, now.log_id, before.seq, self._clock())
                read[source] = Position(log_id=now.log_id)
                replaced.append(Read(source=source, position=read[source], entries=(entry,)))
            elif not before.log_id:
                read[source] = Position(log_id=now.log_id, seq=before.seq)
        self._tail = msgspec.structs.replace(self._tail, read=read)
        return replaced

    async def _read(self, source: str) -> None:
        position = self._tail.read[source]
        # CONFIG is folded from its beginning: only the state before a change tells what it changed
        after = 0 if source == CONFIG else position.seq
        async for messages in self._bus.follow(source, STREAMS[source], after, gather=AT_LEISURE_SECONDS):
            found = [read for stored in messages if (read := self._one(source, position, stored)) is not None]
            if found:
                await self._queue.put(found)

    def _read_up_to(self, source: str) -> int:
        return self._tail.read[source].seq

    def _one(self, source: str, start: Position, stored: Stored) -> Read | None:
        entries = self._convert(source)(stored.data, stored.seq)
        if entries is None or stored.seq <= start.seq:
            return None
        known = self._written.pop((source, stored.seq), 0)  # written before a crash, of a message cut in two
        position = Position(log_id=start.log_id, seq=stored.seq)
        return Read(source=source, position=position, entries=entries[known:])

    def _convert(self, source: str) -> Convert:
        if source == LEDGER:
            return lambda data, seq: of_commit(_commit.decode(data), seq)
        if source == REQUESTS:
            return lambda data, seq: tuple(
                entry for done in _completed.decode_all(data) for entry in of_request(done, seq)
            )
        return lambda data, seq: self._config.fold(_changed.decode(data), seq)

    async def _write(self, replaced: list[Read]) -> None:
        if replaced:
            await self._append(replaced)
        async for batch in self._batches():
            await self._append(batch)

    async def _append(self, batch: list[Read]) -> None:
        made = pages(self._tail, self._settings.chain, batch, self._clock())
        for data, tail in made:
            await self._chain.append(data, tail)
            self._tail = tail
            telemetry.audit_pages.inc()
        # what gave no entry needs no page: it is read again after a restart, and gives none again
        read = self._tail.read | {one.source: one.position for one in batch}
        self._tail = msgspec.structs.replace(self._tail, read=read)

    async def _batches(self) -> AsyncIterator[list[Read]]:
        """What came within flush_interval_ms of the first entry, or enough to flush."""
        while True:
            batch = await self._queue.get()
            count = sum(len(read.entries) for read in batch)
            try:
                async with asyncio.timeout(self._settings.flush_interval_ms / 1000):
                    while count < self._settings.flush_entries:
                        more = await self._queue.get()
                        batch += more
                        count += sum(len(read.entries) for read in more)
            except TimeoutError:
                pass
            yield batch
