"""The bus on a real broker."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from shared.bus import Bus, open_bus, provision
from shared.contracts.streams import LEDGER
from shared.errors import Overtaken, Unavailable
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import until


async def test_a_message_id_stores_a_record_once(bus: Bus) -> None:
    first = await bus.append("ledger.0", b"x", msg_id="a")
    assert await bus.append("ledger.0", b"x", msg_id="a") == first
    assert (await bus.end(LEDGER)).seq == 1


async def test_an_expected_sequence_that_does_not_hold_stores_nothing(bus: Bus) -> None:
    await bus.append("ledger.0", b"x", expected_last_seq=0)
    with pytest.raises(Overtaken):
        await bus.append("ledger.0", b"y", expected_last_seq=0)
    assert (await bus.end(LEDGER)).seq == 1


async def test_a_stream_made_anew_has_another_log_id(bus: Bus) -> None:
    before = (await bus.end(LEDGER)).log_id
    await bus.client.jetstream().delete_stream(bus.names.stream(LEDGER))
    await provision(bus)
    assert before
    assert (await bus.end(LEDGER)).log_id not in ("", before)


async def test_provisioning_twice_changes_nothing(bus: Bus) -> None:
    before = await bus.end(LEDGER)
    await provision(bus)
    assert await bus.end(LEDGER) == before


async def test_a_request_nobody_answers_is_unavailable_at_once(bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await bus.request("budget.0.reserve", b"", timeout=5)


async def test_a_handler_answers_requests_concurrently(bus: Bus) -> None:
    both = asyncio.Barrier(2)

    async def handler(data: bytes) -> bytes:
        await both.wait()
        return data.upper()

    await bus.subscribe("budget.0.reserve", handler)
    assert await asyncio.gather(*(bus.request("budget.0.reserve", b) for b in (b"a", b"b"))) == [b"A", b"B"]


async def _stored(bus: Bus, msg_id: str) -> bool:
    """Append as services do: again with the same id until it is acknowledged."""
    try:
        return bool(await bus.append("ledger.0", b"x", msg_id=msg_id, timeout=1))
    except Unavailable:
        return False


async def test_following_survives_a_killed_broker_without_gap_or_repeat(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    seen: list[int] = []
    try:
        async with open_bus(broker.settings("p"), "test") as bus:
            await provision(bus)

            async def read() -> None:
                async for messages in bus.follow(LEDGER, after=2, batch=3):
                    seen.extend(m.seq for m in messages)

            reader = asyncio.create_task(read())
            for _ in range(5):
                await bus.append("ledger.0", b"x")
            await until(lambda: seen == [3, 4, 5])
            broker.stop()
            broker.start()
            for n in range(5):
                await until(partial(_stored, bus, str(n)), 15)
            await until(lambda: seen == [*range(3, 11)], 15)
            reader.cancel()
    finally:
        broker.stop()


async def test_the_broker_tells_whether_it_syncs_before_it_acknowledges(bus: Bus, tmp_path: Path) -> None:
    assert await bus.sync_always() is True
    lazy = Broker(tmp_path, sync='"2m"')
    lazy.start()
    try:
        async with open_bus(lazy.settings(), "test") as other:
            assert await other.sync_always() is False
    finally:
        lazy.stop()
