"""Standing in line at the owner, for a first grant or for more; over a real broker, the owner played."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from services.edge.stores import owner as stores
from shared.bus import Bus
from shared.contracts.budget import EXTEND, RESERVE, Denied, Extend, Granted, Queued, Verdict
from shared.contracts.edge import EDGE_VERDICT
from shared.contracts.message import Decoder, encode
from tests.e2e.test_edge_owner import Maker, PlayedOwner, owner, played
from tests.fixtures.attempts import DENIED, GRANTED, reserve
from tests.fixtures.waiting import until

pytestmark = pytest.mark.alone

__all__ = ["owner", "played"]  # fixtures

QUEUED = Queued(ahead=1, owner_epoch=1)
MORE = Extend(rid="R", n=2, output_tokens=500)
_extend = Decoder(Extend)


def teller(bus: Bus) -> Callable[[Granted | Denied, int], Awaitable[None]]:
    """Says late verdicts."""

    async def say(answer: Granted | Denied, n: int = 0) -> None:
        await bus.publish(EDGE_VERDICT.format(edge="E1"), encode(Verdict(rid="R", n=n, answer=answer)))

    return say


async def test_a_verdict_that_overtakes_the_word_queued_is_not_lost(owner: Maker, bus: Bus) -> None:
    say, asked = teller(bus), 0

    async def answer(data: bytes) -> bytes:
        nonlocal asked
        asked += 1
        await say(GRANTED, 0)
        await bus.end("LEDGER")  # a question of our own: what was said before it is there when it is answered
        return encode(Verdict(rid="R", answer=QUEUED))

    await bus.subscribe(RESERVE.format(shard="0"), answer)
    one = await owner(20)
    async with asyncio.timeout(1):  # less than a turn
        assert await one.reserve(reserve("R")) == GRANTED
    assert asked == 1


async def test_the_verdict_about_an_extension_is_none_about_the_grant(
    owner: Maker, played: PlayedOwner, bus: Bus
) -> None:
    played.script, say = [QUEUED], teller(bus)
    asking = asyncio.create_task((await owner(20)).reserve(reserve("R")))
    await until(lambda: played.asked)
    await say(DENIED, 1)
    await say(GRANTED, 0)
    assert await asyncio.wait_for(asking, 1) == GRANTED


async def test_a_turn_is_kept_through_a_restart_by_saying_how_long_one_has_waited(
    owner: Maker, played: PlayedOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued, then nobody there, then a new owner that asks to wait on, then the grant."""
    monkeypatch.setattr(stores, "TURN_SECONDS", 0.2)
    new = msgspec.structs.replace
    played.script = [QUEUED, None, None, new(QUEUED, owner_epoch=2), new(GRANTED, owner_epoch=2)]
    assert isinstance(await (await owner(20)).reserve(reserve("R")), Granted)
    waited = [ask.waited_ms for ask in played.asked]
    assert waited == sorted(waited)
    assert waited[-1] >= 380  # the loop may wake a moment early
    assert {ask.rid for ask in played.asked} == {"R"}


async def test_an_owner_that_lets_one_wait_is_there_however_long_it_takes(
    owner: Maker, played: PlayedOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget may let its requests stand in line for longer than the edge waits for an owner."""
    monkeypatch.setattr(stores, "TURN_SECONDS", 0.1)
    played.script = [QUEUED] * 5 + [GRANTED]
    assert await (await owner(0.2)).reserve(reserve("R")) == GRANTED
    assert played.withdrawn == []


async def test_a_client_that_leaves_the_line_withdraws(owner: Maker, played: PlayedOwner) -> None:
    played.script = [QUEUED]
    asking = asyncio.create_task((await owner(20)).reserve(reserve("R")))
    await until(lambda: played.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: played.withdrawn == ["R"])


async def test_an_extension_is_asked_for_until_an_owner_answers_however_long_that_takes(owner: Maker, bus: Bus) -> None:
    one = await owner(0.1)  # the patience of a RESERVE is not that of a stream in flight
    asking = asyncio.create_task(one.extend(MORE))
    done, _ = await asyncio.wait({asking}, timeout=0.4)
    assert not done
    asked: list[Extend] = []

    async def answer(data: bytes) -> bytes:
        asked.append(_extend.decode(data))
        return encode(Verdict(rid="R", n=2, answer=GRANTED))

    await bus.subscribe(EXTEND.format(shard="0"), answer)
    assert await asyncio.wait_for(asking, 3) == GRANTED
    assert asked == [msgspec.structs.replace(MORE, org="01ORG")]


async def test_an_extension_in_line_gets_the_verdict_with_its_number(owner: Maker, bus: Bus) -> None:
    say, asked = teller(bus), 0

    async def answer(data: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return encode(Verdict(rid="R", n=2, answer=QUEUED))

    await bus.subscribe(EXTEND.format(shard="0"), answer)
    asking = asyncio.create_task((await owner(20)).extend(MORE))
    await until(lambda: asked)
    for n in (0, 1, 3):
        await say(DENIED, n)
    await say(GRANTED, 2)
    assert await asyncio.wait_for(asking, 1) == GRANTED
