"""The outside world: the book on disk and on the bus, and the PRICED log that only one process may write."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import structlog

from services.pricing.settings import PACKAGED_BOOK
from shared.bus import Stored
from shared.contracts.message import Decoder, bundle, encode
from shared.contracts.pricing import PRICES_BOOK, USAGE_PRICED, PriceBook, PriceBookPublished, UsagePriced
from shared.contracts.streams import PRICED, PRICES, Position
from shared.errors import Overtaken, Unavailable

log = structlog.get_logger()
T = TypeVar("T")

RETRY_SECONDS = 0.2
MOST_BYTES = 256 * 1024  # of a bundle, but for a longer one of USAGE
_book = msgspec.json.Decoder(PriceBook)
_published = Decoder(PriceBookPublished)
_priced = Decoder(UsagePriced)

ANY_SHARD = USAGE_PRICED.format(shard="*")
_Record = tuple[str, str, bytes]  # subject, message id, bytes


class Log(Protocol):
    """What is used of the bus here: see `shared.bus.Bus`."""

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str = "",
        expected_last_seq: int | None = None,
        expected_end: int | None = None,
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

    The fence is the end of the whole stream, not of one subject: there is one order over all shards, so a hole cannot be
    stored over by the next shard's record, and shards that take turns still share a window. A second writer makes either
    of them fail with Overtaken; message ids carry `incarnation` so that the other's copy is not taken for one's own.
    """

    def __init__(self, bus: Log, incarnation: str, window_records: int = 64) -> None:
        self._bus = bus
        self._incarnation = incarnation
        self._window = window_records
        self._end = 0

    async def resume(self, usage_log_id: str) -> int:
        """The sequence in USAGE up to which everything is priced; 0 when USAGE was made anew since."""
        # The end is read first: what another writer stores in between must make us fail, not begin behind it.
        end = (await self._bus.end(PRICED)).seq
        stored = await self._bus.last(PRICED, ANY_SHARD)
        self._end = stored.seq if stored else end  # a log that was purged has an end, though no last record
        if stored is None:
            return 0
        usage_at = _priced.decode_all(stored.data)[-1].usage_at
        return usage_at.seq if usage_at.log_id == usage_log_id else 0

    async def append(self, groups: Sequence[Sequence[UsagePriced]]) -> None:
        """Store all, in order. Waits for as long as the broker is away; raises Overtaken when another writer lives.

        groups: of one shard each, what one message of USAGE became. None is divided: the last message says where to resume.
        """
        left = self._bundled(groups)
        size, unsure = self._window, False
        while left:
            if await self._try(left[:size], unsure):
                left, size, unsure = left[size:], self._window, False
            else:  # then one alone, to find firm ground
                left, size, unsure = left[await self._stored_of(left[:size]) :], 1, True

    async def _try(self, window: Sequence[_Record], unsure: bool) -> bool:
        """Publish the window at once; False when something was not acknowledged as foretold.

        unsure: an earlier copy of these may still reach the log, so that a refusal need not be another writer's doing.
        """
        end = self._end
        results = await asyncio.gather(
            *(
                self._bus.append(subject, data, msg_id=msg_id, expected_end=end + index)
                for index, (subject, msg_id, data) in enumerate(window)
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Unavailable | Overtaken):
                raise result
        if not unsure and all(isinstance(result, Overtaken) for result in results):
            raise Overtaken("PRICED")  # whoever stored something goes on: so one of two writers always does
        if list(results) != list(range(end + 1, end + len(window) + 1)):
            log.warning("pricing.append_unsure", after_seq=end, records=len(window))
            return False
        self._end = end + len(window)
        return True

    async def _stored_of(self, window: Sequence[_Record]) -> int:
        """How many of the window are in the log, by its last message: ours is success, else another writer lives."""
        await asyncio.sleep(RETRY_SECONDS)
        stored = await _persist(lambda: self._bus.last(PRICED, ANY_SHARD))
        seq = stored.seq if stored else self._end
        if seq == self._end:
            return 0
        index = seq - self._end - 1
        if stored is None or not 0 <= index < len(window) or window[index][2] != stored.data:
            raise Overtaken("PRICED")
        self._end = seq
        return index + 1

    def _bundled(self, groups: Sequence[Sequence[UsagePriced]]) -> list[_Record]:
        """As few messages as their sizes allow; shards that take turns cannot share one."""
        made: list[_Record] = []
        subject, msg_id, size = "", "", 0
        messages: list[bytes] = []
        for entries in groups:
            encoded = [encode(entry) for entry in entries]
            group_size = sum(map(len, encoded))
            if messages and (subject != _subject(entries[0]) or size + group_size > MOST_BYTES):
                made.append((subject, msg_id, bundle(messages)))
                messages, size = [], 0
            if not messages:
                subject, msg_id = _subject(entries[0]), self._msg_id(entries[0])
            messages += encoded
            size += group_size
        if messages:
            made.append((subject, msg_id, bundle(messages)))
        return made

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
