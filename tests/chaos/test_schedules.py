"""Schedules that luck would take long to find: what the fence, message ids and the resume position are each for."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from shared.bus import Bus
from shared.contracts.budget import RESERVE, WITHDRAW, Granted, Reserve, Verdict, Withdraw
from shared.contracts.message import Decoder
from shared.contracts.streams import PRICED
from shared.errors import Unavailable
from tests.chaos import books, run
from tests.chaos.judge import Judge
from tests.chaos.owner import owner
from tests.chaos.proxy import proxy
from tests.chaos.stage import stage
from tests.fixtures.broker import Broker
from tests.fixtures.budget import USD, Asker, ask, publish_priced, usage
from tests.fixtures.governed import installation
from tests.fixtures.waiting import until

KEY, CAP = "key:key:total", 5 * USD  # of tests.fixtures.governed.installation
_verdict = Decoder(Verdict)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[Bus]:
    """An installation without traffic, one key with 5 USD."""
    async with installation(Broker(tmp_path / "nats")) as made:
        yield made


def _dear(rid: str) -> Reserve:
    """Held at 0.241 USD, as nothing of it is streamed: 20 of them are 4.82 of the 5 USD."""
    return ask(rid, max_tokens=24_000, stream=False)


async def _admit(asker: Asker, rids: Iterable[str]) -> None:
    for rid in rids:
        answer = await asker.reserve(_dear(rid))
        assert isinstance(answer, Granted), (rid, answer)


async def _nothing_held(asker: Asker) -> None:
    async def check() -> bool:
        try:
            return (await asker.balance(KEY)).held_nano_usd == 0
        except Unavailable:
            return False

    await until(check, 15, "P1: every attempt closed and every hold released")


async def test_an_owner_that_was_frozen_while_another_took_over_writes_nothing_more(quiet: Bus, tmp_path: Path) -> None:
    """The fence. Both believe that they own the shard; the frozen one knows nothing of what the other has granted."""
    asker = Asker(quiet)
    ours, theirs, late = ([f"{who}{n}" for n in range(10)] for who in ("ours", "theirs", "late"))
    async with owner(quiet.settings, tmp_path / "first") as first:
        await _admit(asker, ours)
        first.signal(signal.SIGSTOP)
        async with owner(quiet.settings, tmp_path / "second") as second:
            await _admit(asker, theirs)
            second.signal(signal.SIGSTOP)
            first.signal(signal.SIGCONT)
            granted = [rid for rid in late if await _grants(asker, rid)]
            second.signal(signal.SIGCONT)
            for rid in (*ours, *theirs, *granted):
                await publish_priced(quiet, usage(rid, nano_usd=200_000_000))
            for rid in late:
                await asker.once(Withdraw(rid=rid, edge="e1", epoch=1), WITHDRAW)
            await _nothing_held(asker)
            Judge(await books.of_broker(quiet, {KEY: CAP})).verdict()
            assert not granted
            assert await first.ended() == 1, "overtaken, it ends"


async def _grants(asker: Asker, rid: str) -> bool:
    try:
        answer = _verdict.decode(await asker.once(_dear(rid), RESERVE, timeout=0.3)).answer
    except Unavailable:
        return False
    return isinstance(answer, Granted)


async def test_what_was_delivered_but_not_committed_is_read_again_by_the_next_owner(quiet: Bus, tmp_path: Path) -> None:
    """The resume position. The owner has a close in its hands and cannot write it when it dies; it can ask for no other."""
    asker, rids = Asker(quiet), [f"r{n}" for n in range(10)]
    port = int(quiet.settings.url.rpartition(":")[2])
    async with proxy(port) as between, owner(quiet.settings, tmp_path / "owner", between.port) as it:
        await _admit(asker, rids)
        between.stall("up")
        for rid in rids:
            await publish_priced(quiet, usage(rid, nano_usd=200_000_000))
        await until(lambda: _delivered(quiet), 10, "the delivery of a close")
        await it.kill()
        between.cut()
        between.heal()
        await it.start()
        await _nothing_held(asker)
        Judge(await books.of_broker(quiet, {KEY: CAP})).verdict()
        assert (await asker.balance(KEY)).spent_nano_usd == 10 * 200_000_000


async def _delivered(bus: Bus) -> bool:
    """To the owner, which is the only reader of PRICED here."""
    found = await bus.client.jetstream().consumers_info(bus.names.stream(PRICED))
    return any(consumer.delivered and consumer.delivered.stream_seq > 0 for consumer in found)


async def test_what_is_published_again_after_a_lost_acknowledgement_is_stored_once(tmp_path: Path) -> None:
    """Message ids. The broker hears the edge, the edge does not hear the broker; then the connection is reset."""
    async with stage(tmp_path, through_broker_proxy=["edge"]) as it:
        traffic = asyncio.create_task(it.traffic(7.0, 30, directives="ttft_ms=300"))
        for _ in range(4):
            await asyncio.sleep(0.8)
            it.broker.half_open("down")
            await asyncio.sleep(0.5)
            it.broker.heal()
        await traffic
        figures = await it.judged()
    run.say(f"acknowledgements lost four times; {figures.report()}")
