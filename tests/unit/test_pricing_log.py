"""PRICED through a broker that loses answers: each record once, in order, and a second writer noticed."""

import itertools
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from services.pricing import core, stores
from services.pricing.stores import PricedLog, publish_book, read_book
from shared.bus import Stored
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import PRICES_BOOK, PriceBookPublished, UsagePriced
from shared.contracts.streams import PRICED, PRICES, Position
from shared.errors import Overtaken, Unavailable
from shared.rates import Book, Overrides
from tests.unit.test_pricing_core import record

BOOK = Book(read_book())
_decoder = Decoder(UsagePriced)
Fault = Callable[[int], str]


class MemoryLog:
    """A broker in memory. fault(n) says what befalls the n-th append: "", "refused" or "answer lost"."""

    def __init__(self, fault: Fault = lambda n: "") -> None:
        self.messages: list[Stored] = []
        self._fault = fault
        self._ids: dict[str, int] = {}
        self._appends = itertools.count()

    async def append(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str = "",
        expected_last_seq: int | None = None,
        expected_end: int | None = None,
    ) -> int:
        fault = self._fault(next(self._appends))
        if fault == "refused":
            raise Unavailable("bus")
        last = max((m.seq for m in self.messages if m.subject == subject), default=0)
        wrong = expected_last_seq not in (None, last) or expected_end not in (None, len(self.messages))
        seq = self._store(subject, data, msg_id, wrong)
        if fault:
            raise Unavailable("bus")
        return seq

    def _store(self, subject: str, data: bytes, msg_id: str, wrong: bool) -> int:
        if msg_id and msg_id in self._ids:
            return self._ids[msg_id]
        if wrong:
            raise Overtaken(subject)
        self.messages.append(Stored(len(self.messages) + 1, subject, data))
        self._ids[msg_id] = len(self.messages)
        return len(self.messages)

    async def last(self, stream: str, subject: str) -> Stored | None:
        prefix = subject.removesuffix("*")
        found = [m for m in self.messages if m.subject == subject or ("*" in subject and m.subject.startswith(prefix))]
        return found[-1] if found else None

    async def end(self, stream: str) -> Position:
        return Position(log_id="L", seq=len(self.messages))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker in memory is back at once, and each group is a message of its own."""
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0)
    monkeypatch.setattr(stores, "MOST_BYTES", 1)


def groups(entries: list[UsagePriced]) -> list[list[UsagePriced]]:
    """What a USAGE without bundles becomes."""
    return [[entry] for entry in entries]


def entries(count: int, shards: str = "0") -> list[UsagePriced]:
    chosen = itertools.islice(itertools.cycle(shards), count)
    return [entry(seq, shard) for seq, shard in enumerate(chosen, start=1)]


def entry(seq: int, shard: str = "0", rid: str = "") -> UsagePriced:
    usage = record(rid=rid or f"R{seq}", shard=shard)
    terms = core.terms_of(usage, None)
    return core.priced(usage, Position(log_id="L", seq=seq), terms, BOOK, Overrides())


def stored(log: MemoryLog) -> list[UsagePriced]:
    return [entry for message in log.messages for entry in _decoder.decode_all(message.data)]


@pytest.mark.parametrize("shards", ["0", "01", "0010112"])
async def test_everything_is_stored_once_and_in_order(shards: str) -> None:
    log = MemoryLog()
    priced = PricedLog(log, "i", window_records=8)
    assert await priced.resume("L") == 0
    wanted = entries(50, shards)
    await priced.append(groups(wanted[:20]))
    await priced.append(groups(wanted[20:]))
    assert stored(log) == wanted
    assert await PricedLog(log, "j").resume("L") == 50


@pytest.mark.parametrize("fault", ["refused", "answer lost"])
@pytest.mark.parametrize("every", [2, 3, 7])
async def test_a_broker_that_fails_now_and_then_loses_and_doubles_nothing(fault: str, every: int) -> None:
    log = MemoryLog(lambda n: fault if n % every == 1 else "")
    priced = PricedLog(log, "i", window_records=8)
    await priced.resume("L")
    wanted = entries(60, "001")
    await priced.append(groups(wanted))
    assert stored(log) == wanted


@pytest.mark.parametrize("fault", ["", "refused", "answer lost"])
@pytest.mark.parametrize("most", [1, 2_000, 1_000_000])
async def test_what_one_message_of_usage_became_is_never_divided(
    fault: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MOST_BYTES", most)
    log = MemoryLog(lambda n: fault if n % 3 == 1 else "")
    priced = PricedLog(log, "i", window_records=4)
    await priced.resume("L")
    wanted = [
        [entry(seq, shard, rid=f"R{seq}.{n}") for n in range(1 + seq % 3)] for seq, shard in enumerate("0011010001", 1)
    ]
    await priced.append(wanted)
    assert stored(log) == [each for group in wanted for each in group]
    bundles = [_decoder.decode_all(message.data) for message in log.messages]
    assert all(len({each.usage.shard for each in one}) == 1 for one in bundles)
    for before, after in itertools.pairwise(bundles):
        assert before[-1].usage_at.seq < after[0].usage_at.seq
    assert await PricedLog(log, "j").resume("L") == 10
    assert len(bundles) == (6 if most == 1_000_000 else len(bundles))


async def test_shards_that_take_turns_share_a_window() -> None:
    log = MemoryLog()
    priced = PricedLog(log, "i", window_records=64)
    await priced.resume("L")
    wanted = entries(64, "01")
    window = [(f"usage.priced.{e.usage.shard}", priced._msg_id(e), encode(e)) for e in wanted]
    assert await priced._try(window, unsure=False)
    assert stored(log) == wanted


async def test_a_writer_that_slept_cannot_store_on_a_shard_that_the_other_has_not_touched() -> None:
    log = MemoryLog()
    asleep, awake = PricedLog(log, "i"), PricedLog(log, "j")
    await asleep.resume("L")
    await awake.resume("L")
    await awake.append(groups(entries(2, "0")))
    with pytest.raises(Overtaken):
        await asleep.append(groups([entry(1, "1")]))
    assert len(log.messages) == 2


async def test_a_record_that_an_edge_sent_twice_does_not_stop_the_log() -> None:
    log = MemoryLog()
    priced = PricedLog(log, "i")
    await priced.resume("L")
    twice = [entry(1, rid="R"), entry(2, rid="R"), entry(3)]
    await priced.append(groups(twice))
    assert stored(log) == twice


async def test_a_second_writer_is_noticed_and_doubles_nothing() -> None:
    log = MemoryLog()
    first, second = PricedLog(log, "i"), PricedLog(log, "j")
    await first.resume("L")
    await second.resume("L")
    wanted = entries(3)
    await first.append(groups(wanted[:2]))
    with pytest.raises(Overtaken):
        await second.append(groups(wanted[:2]))
    await first.append(groups(wanted[2:]))
    assert stored(log) == wanted


async def test_of_two_writers_at_once_the_one_that_stored_last_goes_on() -> None:
    log = MemoryLog()
    first, second = PricedLog(log, "i"), PricedLog(log, "j")
    await first.resume("L")
    await second.resume("L")
    wanted = entries(5, "01")
    await first.append(groups(wanted[:2]))
    await second.append(groups(wanted[:3]))  # its third fits where the other stands
    with pytest.raises(Overtaken):
        await first.append(groups(wanted[2:3]))
    await second.append(groups(wanted[3:]))
    assert stored(log) == wanted


async def test_a_usage_log_made_anew_is_priced_from_its_beginning() -> None:
    log = MemoryLog()
    priced = PricedLog(log, "i")
    await priced.resume("L")
    await priced.append(groups(entries(3)))
    assert await PricedLog(log, "j").resume("another") == 0


async def test_the_book_is_published_when_its_version_is_new_and_only_then() -> None:
    log, book = MemoryLog(), read_book()
    assert await publish_book(log, book) == book
    assert await publish_book(log, book) == book
    newer = msgspec.structs.replace(book, version="2026-12-01")
    assert await publish_book(log, newer) == newer
    versions = [Decoder(PriceBookPublished).decode(message.data).version for message in log.messages]
    assert versions == ["2026-11-21", "2026-12-01"]
    assert await log.last(PRICES, PRICES_BOOK) == log.messages[-1]


async def test_under_one_version_the_book_that_was_published_first_stays_in_force() -> None:
    log, book = MemoryLog(), read_book()
    await publish_book(log, book)
    assert await publish_book(log, msgspec.structs.replace(book, cards=book.cards[:1])) == book


async def test_an_empty_log_begins_at_the_beginning() -> None:
    assert await MemoryLog().last(PRICED, "usage.priced.*") is None
    assert await PricedLog(MemoryLog(), "i").resume("L") == 0


async def test_what_another_writer_stores_while_we_resume_is_never_taken_for_an_empty_log() -> None:
    """Found by the suite under load: the last record was read before, the end after the other one's first records."""
    wanted = entries(4)

    class Racing(MemoryLog):
        def __init__(self) -> None:
            super().__init__()
            self.raced = False

        async def race(self) -> None:
            if not self.raced:
                self.raced = True
                await PricedLog(self, "other").append(groups(wanted[:2]))

        async def last(self, stream: str, subject: str) -> Stored | None:
            found = await super().last(stream, subject)
            await self.race()
            return found

        async def end(self, stream: str) -> Position:
            found = await super().end(stream)
            await self.race()
            return found

    log = Racing()
    priced = PricedLog(log, "i")
    after = await priced.resume("L")
    with suppress(Overtaken):
        await priced.append(groups(wanted[after:]))
    assert stored(log) == wanted[: len(log.messages)]
