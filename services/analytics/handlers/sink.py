"""Follows one log into one table. The only record of progress is in the rows."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from services.analytics.core.inserts import Insert, Piece, Resume, cut, resume
from services.analytics.core.tables import Table
from services.analytics.stores.database import Database
from shared.bus import AT_LEISURE_SECONDS, Bus, Stored
from shared.bus.behind import tell_behind
from shared.contracts.streams import Position
from shared.errors import Unavailable
from shared.service import side_by_side
from shared.telemetry import analytics_insert_seconds, analytics_rows

log = structlog.get_logger()

R = TypeVar("R")

WAITING_LISTS = 16  # of messages from the bus; beyond that the reader waits for the writer
RETRY_SECONDS = 0.5


class LogReplaced(RuntimeError):
    """The stream was made anew while we followed it; the next start reads the new one from its beginning."""


class Sink(Generic[R]):
    """expander: a message as pieces of rows, given the log's id. from_start: read the whole log each time, for a fold."""

    def __init__(
        self,
        bus: Bus,
        database: Database,
        stream: str,
        table: Table[R],
        expander: Callable[[str], Callable[[Stored], list[Piece[R]]]],
        *,
        from_start: bool = False,
    ) -> None:
        self._bus = bus
        self._database = database
        self._stream = stream
        self._table = table
        self._expander = expander
        self._from_start = from_start
        self._lists: asyncio.Queue[list[Stored]] = asyncio.Queue(WAITING_LISTS)
        self._end = Position()
        self._written = 0
        self._start = Resume(0)
        self.caught_up = asyncio.Event()
        self.failing = False

    @property
    def table(self) -> str:
        return self._table.name

    async def begin(self) -> None:
        """Find where to go on. Raises Unavailable."""
        self._end = await self._bus.end(self._stream)
        name = f"{self._database.settings.database}.{self._table.name}"
        if self._database.settings.engine == "ReplicatedMergeTree":  # this replica may lag behind our own inserts
            await self._database.command(f"SYSTEM SYNC REPLICA {name}")
        rows = await self._database.rows(
            f"SELECT log_id, max(stream_seq) FROM {name} GROUP BY log_id"  # noqa: S608  # names of ours
        )
        held = {str(log_id): int(str(seq)) for log_id, seq in rows}
        self._start = resume(held, self._end)
        if self._start.alarm:
            log.error("analytics.log_alarm", alarm=self._start.alarm, stream=self._stream, held=held, end=self._end.seq)
        log.info("analytics.resumed", stream=self._stream, after=self._start.after, end=self._end.seq)
        self._advance(self._start.after)

    async def run(self) -> None:
        """For ever, after `begin`."""
        behind = tell_behind(self._bus, "analytics", self._stream, lambda: self._written)
        await side_by_side(self._read(), self._write(), self._check(), behind)

    async def _read(self) -> None:
        after = 0 if self._from_start else self._start.after
        async for messages in self._bus.follow(self._stream, after=after, gather=AT_LEISURE_SECONDS):
            await self._lists.put(messages)

    async def _write(self) -> None:
        """At once when idle; under load a pause gathers rows, as each insert makes a part that must be merged."""
        expand = self._expander(self._end.log_id)
        pause = self._database.settings.flush_interval_ms / 1000
        while True:
            messages = await self._lists.get()
            while not self._lists.empty():
                messages = messages + self._lists.get_nowait()
            pieces = [piece for stored in messages for piece in expand(stored)]
            pieces = [piece for piece in pieces if piece.seq > self._start.after]
            for insert in cut(pieces, self._database.settings.batch_rows):
                await self._insert(insert)
            self._advance(messages[-1].seq)
            if pieces and not self._lists.full():
                await asyncio.sleep(pause)

    async def _insert(self, insert: Insert[R]) -> None:
        """Until it is done. The token lets a repeat of an insert whose answer was lost change nothing."""
        while True:
            try:
                with analytics_insert_seconds.labels(self._table.name).time():
                    await self._database.insert(self._table, insert.rows, insert.token(self._end.log_id))
            except Unavailable:
                self.failing = True
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.failing = False
                analytics_rows.labels(self._table.name).inc(len(insert.rows))
                return

    def _advance(self, seq: int) -> None:
        self._written = max(self._written, seq)
        if self._written >= self._end.seq:
            self.caught_up.set()

    async def _check(self) -> None:
        """A reader of a log that was made anew would wait in silence for a sequence that is far away."""
        while True:
            await asyncio.sleep(self._database.settings.log_check_seconds)
            try:
                end = await self._bus.end(self._stream)
            except Unavailable:
                continue
            if end.log_id != self._end.log_id:
                raise LogReplaced(self._stream)
