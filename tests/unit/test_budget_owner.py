"""The owner's loop: what one record of the ledger may hold."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from services.budget.core.admission import Rules
from services.budget.core.state import State
from services.budget.core.step import Close
from services.budget.handlers.owner import Owner
from services.budget.handlers.rulebook import Rulebook
from services.budget.stores import Ledger
from shared.bus import Bus
from shared.clock import Clock
from shared.contracts.budget import Granted
from shared.contracts.config import BudgetRule, Key
from shared.contracts.ledger import Commit, Decided, LedgerEvent
from shared.contracts.message import Decoder, Micros, encode
from shared.contracts.streams import Position
from shared.errors import Overtaken
from tests.fixtures.budget import NOW, SECOND, ask, organisation, rules, usage
from tests.fixtures.waiting import until

_commit = Decoder(Commit)
KEYS = 12_000
MOST_BYTES = 1 << 20  # what the broker takes as one message


class PlayedLedger:
    """Takes every record."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.largest = 0

    async def append(self, state: State, events: Sequence[LedgerEvent], now: Micros) -> None:
        record = Commit(
            shard="0", owner_epoch=1, at=now, digest=bytes(32), priced=Position(log_id="p"), events=tuple(events)
        )
        self.largest = max(self.largest, len(encode(record)))
        self.versions += [event.version for event in events if isinstance(event, Decided)]
        await asyncio.sleep(0)

    async def confirm(self) -> None:
        await asyncio.sleep(0)


class PlayedRulebook:
    """Rules that never change."""

    def __init__(self, known: Rules) -> None:
        self.changed = asyncio.Event()
        self._known = known

    def current(self) -> Rules:
        return self._known


def _key(uid: str) -> Key:
    nothing = BudgetRule(id=f"key:{uid}:month", limit_nano_usd=0, period="month")
    return Key(uid=uid, org="org", customer="cus", team="team", id=uid, budgets=(nothing,))


async def test_blocks_of_any_number_of_keys_at_once_fit_the_records() -> None:
    """A month that begins or a new organisation decides them all in one moment; a record too large would stop the shard."""
    keys = [_key(f"01M7YWX7E0HQRZGNWWCYT{n:05d}") for n in range(KEYS)]
    ledger, rulebook = PlayedLedger(), PlayedRulebook(rules([*organisation(), *keys]))
    owner = Owner(
        cast(Ledger, ledger),
        State(),
        cast(Rulebook, rulebook),
        lambda decided, changed: None,
        lambda late: None,
        lambda: NOW,
        "0",
        400_000,
    )
    owner.tick()
    running = asyncio.create_task(owner.run())
    try:
        await until(lambda: len(ledger.versions) == KEYS)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert ledger.largest < MOST_BYTES
    assert ledger.versions == list(range(1, KEYS + 1))


class SlowBus:
    """Stores a record each time `release` is called, and not before."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self._waiting: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()
        self.asked = 0

    async def append(self, subject: str, data: bytes, *, msg_id: str, expected_last_seq: int) -> int:
        assert expected_last_seq == len(self.records), "one record at a time"
        self.asked += 1
        released = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(released)
        await released
        self.records.append(data)
        return len(self.records)

    async def release(self) -> None:
        (await self._waiting.get()).set_result(None)


@asynccontextmanager
async def owner_on(bus: SlowBus, clock: Clock = lambda: NOW) -> AsyncIterator[Owner]:
    ledger, state = Ledger(cast(Bus, bus), "0"), State(priced=Position(log_id="p"))
    rulebook = cast(Rulebook, PlayedRulebook(rules(organisation())))
    owner = Owner(ledger, state, rulebook, lambda decided, changed: None, lambda late: None, clock, "0", 400_000)
    running = asyncio.create_task(owner.run())
    try:
        yield owner
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def folded(records: Sequence[bytes]) -> State:
    state = State(priced=Position(log_id="p"))
    for record in records:
        state.fold(_commit.decode(record))
    return state


async def test_what_arrives_while_a_record_is_written_is_decided_at_once_and_answered_when_it_is_durable_too() -> None:
    bus = SlowBus()
    async with owner_on(bus) as owner:
        first = owner.ask(ask("a"), 200)
        await until(lambda: bus.asked == 1)
        second, again = owner.ask(ask("b"), 200), owner.ask(ask("a"), 200)
        await until(lambda: "b" in owner.state.holds)
        assert not first.done(), "nothing is durable yet"
        await bus.release()
        assert isinstance(await first, Granted)
        await until(lambda: bus.asked == 2)
        assert not second.done() and not again.done()
        await bus.release()
        assert isinstance(await second, Granted) and await again == await first
    assert set(folded(bus.records[:1]).holds) == {"a"}
    assert folded(bus.records) == owner.state


async def test_a_record_says_nothing_of_what_was_decided_after_it() -> None:
    """A close that was decided ahead must not move the position which the record before it carries: it would be skipped."""
    bus = SlowBus()
    async with owner_on(bus) as owner:
        asking = owner.ask(ask("a"), 200)
        await until(lambda: bus.asked == 1)
        owner.tell(Close(usage("a", nano_usd=5), Position(log_id="p", seq=7)), 200)
        await until(lambda: owner.state.priced.seq == 7)
        await bus.release()
        await asking
        await until(lambda: bus.asked == 2)
        await bus.release()
        async with owner.between_records:
            pass
    assert [_commit.decode(record).priced.seq for record in bus.records] == [0, 7]
    assert folded(bus.records) == owner.state


async def test_who_waits_for_the_moment_between_two_records_gets_it_however_much_is_asked() -> None:
    bus = SlowBus()
    async with owner_on(bus) as owner:
        asked = [owner.ask(ask("r0"), 200)]
        await until(lambda: bus.asked == 1)
        asked.append(owner.ask(ask("r1"), 200))
        await until(lambda: "r1" in owner.state.holds)

        async def look() -> bool:
            async with owner.between_records:
                return owner.durable and folded(bus.records) == owner.state

        async def write() -> None:
            while True:
                await bus.release()

        looking, writing = asyncio.create_task(look()), asyncio.create_task(write())
        for n in range(2, 200):
            asked.append(owner.ask(ask(f"r{n}"), 200))
            await asyncio.sleep(0)
            if looking.done():
                break
        assert await looking
        await asyncio.gather(*asked)
        writing.cancel()
    assert folded(bus.records) == owner.state


async def test_who_is_overtaken_answers_nothing_that_was_decided_ahead() -> None:
    class Overtaking(SlowBus):
        async def append(self, subject: str, data: bytes, *, msg_id: str, expected_last_seq: int) -> int:
            await super().append(subject, data, msg_id=msg_id, expected_last_seq=expected_last_seq)
            raise Overtaken(subject)

        async def last(self, stream: str, subject: str) -> None:
            return None

    bus = Overtaking()
    async with owner_on(bus) as owner:
        first = owner.ask(ask("a"), 200)
        await until(lambda: bus.asked == 1)
        second = owner.ask(ask("b"), 200)
        await until(lambda: "b" in owner.state.holds)
        await bus.release()
        async with owner.between_records:
            assert not owner.durable
    assert not first.done() and not second.done()


async def test_a_broker_that_is_away_makes_no_decision_old() -> None:
    """What waits longer than a moment is decided when it can be written, by the clock of then."""
    bus, now = SlowBus(), [NOW]
    async with owner_on(bus, lambda: now[0]) as owner:
        asked = [owner.ask(ask("a"), 200)]
        await until(lambda: bus.asked == 1)
        asked.append(owner.ask(ask("b"), 200))
        await until(lambda: "b" in owner.state.holds)
        now[0] += 60 * SECOND
        asked.append(owner.ask(ask("c"), 200))
        for _ in range(3):
            await bus.release()
        granted = [await each for each in asked]
    assert [answer.admitted_at - NOW for answer in granted if isinstance(answer, Granted)] == [0, 0, 60 * SECOND]
