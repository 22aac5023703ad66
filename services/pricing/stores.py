"""The outside world: the book on disk and on the bus, and the PRICED log that only one process may write."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import structlog

from services.pricing.settings import PACKAGED_BOOK
from shared.bus import Stored
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import PRICES_BOOK, USAGE_PRICED, PriceBook, PriceBookPublished, UsagePriced
from shared.contracts.streams import PRICED, PRICES, Position
from shared.errors import Overtaken, Unavailable

log = structlog.get_logger()
T = TypeVar("T")

RETRY_SECONDS = 0.2
_book = msgspec.json.Decoder(PriceBook)
_published = Decoder(PriceBookPublished)
_priced = Decoder(UsagePriced)


class Log(Protocol):
    """What is used of the bus here: see `shared.bus.Bus`."""

    async def append(
        self, subject: str, data: bytes, *, msg_id: str = "", expected_last_seq: int | None = None
    ) -> int: ...
    async def last(self, stream: str, subject: str) -> Stored | None: ...
    async def end(self, stream: str) -> Position: ...


def read_book(path: Path = PACKAGED_BOOK) -> PriceBook:
    """Raises OSError or msgspec.DecodeError, the latter naming the field."""
    return _book.decode(path.read_bytes())


async def publish_book(bus: Log, book: PriceBook) -> PriceBook:
    """Make this book the last one in PRICES, unless its version is that already; returns the book in force.

    Under one version there is one book: what was published first stays, else entries priced with it could not be priced
    again to the same amounts.
    """
    stored = await bus.last(PRICES, PRICES_BOOK)
    if stored:
        last = _published.decode(stored.data)
        if last.version == book.version:
            published = _book.decode(last.book)
            if published != book:
                log.error("pricing.book_changed_without_version", version=book.version)
            return published
    message = PriceBookPublished(version=book.version, book=msgspec.json.encode(book))
    await bus.append(PRICES_BOOK, encode(message), expected_last_seq=stored.seq if stored else 0)
    log.info("pricing.book_published", version=book.version, cards=len(book.cards))
    return book


class PricedLog:
    """Appends to PRICED in the order of USAGE, many at once, each fenced by the sequence of the one before.

    The fence foretells sequences, so this is the only writer of the whole stream. A second one makes either of them
    fail with Overtaken; message ids carry `incarnation` so that the other's copy is not taken for one's own.
    """

    def __init__(self, bus: Log, incarnation: str, window_records: int = 64) -> None:
        self._bus = bus
        self._incarnation = incarnation
        self._window = window_records
        self._last: dict[str, int] = {}  # subject to the sequence of its last message
        self._end = 0

    async def resume(self, usage_log_id: str) -> int:
        """The sequence in USAGE up to which everything is priced; 0 when USAGE was made anew since."""
        self._last.clear()
        self._end = (await self._bus.end(PRICED)).seq
        stored = await self._bus.last(PRICED, USAGE_PRICED.format(shard="*"))
        if stored is None:
            return 0
        self._end = max(self._end, stored.seq)
        usage_at = _priced.decode(stored.data).usage_at
        return usage_at.seq if usage_at.log_id == usage_log_id else 0

    async def append(self, entries: Sequence[UsagePriced]) -> None:
        """Store all, in order. Waits for as long as the broker is away; raises Overtaken when another writer lives.

        A window holds one subject: its messages are chained by the fence, so that a hole in it cannot be stored over.
        """
        start = 0
        while start < len(entries):
            subject = _subject(entries[start])
            end = start + 1
            while end < len(entries) and end - start < self._window and _subject(entries[end]) == subject:
                end += 1
            await self._append_window(subject, entries[start:end])
            start = end

    async def _append_window(self, subject: str, entries: Sequence[UsagePriced]) -> None:
        if subject not in self._last:
            stored = await _persist(lambda: self._bus.last(PRICED, subject))
            if stored and stored.seq > self._end:
                raise Overtaken(subject)  # written since we looked, and not by us
            self._last[subject] = stored.seq if stored else 0
        left = [(self._msg_id(entry), encode(entry)) for entry in entries]
        size = len(left)
        while left:
            if await self._try(subject, left[:size]):
                left, size = left[size:], len(left)
            else:
                left, size = (
                    left[await self._stored_of(subject, left[:size]) :],
                    1,
                )  # then one alone, to find firm ground

    async def _try(self, subject: str, window: Sequence[tuple[str, bytes]]) -> bool:
        """Publish the window at once; False when something was not acknowledged as foretold."""
        before, end = self._last[subject], self._end
        expected = [before, *range(end + 1, end + len(window))]
        results = await asyncio.gather(
            *(
                self._bus.append(subject, data, msg_id=msg_id, expected_last_seq=after)
                for (msg_id, data), after in zip(window, expected, strict=True)
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Unavailable | Overtaken):
                raise result
        if list(results) != list(range(end + 1, end + len(window) + 1)):
            log.warning("pricing.append_unsure", subject=subject, records=len(window))
            return False
        self._last[subject] = self._end = end + len(window)
        return True

    async def _stored_of(self, subject: str, window: Sequence[tuple[str, bytes]]) -> int:
        """How many of the window are in the log, by its last message: ours is success, else another writer lives."""
        await asyncio.sleep(RETRY_SECONDS)
        stored = await _persist(lambda: self._bus.last(PRICED, subject))
        end = (await _persist(lambda: self._bus.end(PRICED))).seq
        seq = stored.seq if stored else 0
        if seq == self._last[subject] and end == self._end:
            return 0
        index = seq - self._end - 1
        if stored is None or end != seq or not 0 <= index < len(window) or window[index][1] != stored.data:
            raise Overtaken(subject)
        self._last[subject] = self._end = seq
        return index + 1

    def _msg_id(self, entry: UsagePriced) -> str:
        # with the position: a record that an edge sent again much later is in USAGE twice, and a fence cannot step over it
        return f"{entry.usage.rid}:{entry.usage.kind}:{entry.usage_at.seq}@{self._incarnation}"


def _subject(entry: UsagePriced) -> str:
    return USAGE_PRICED.format(shard=entry.usage.shard)


async def _persist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until the broker answers."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(RETRY_SECONDS)
