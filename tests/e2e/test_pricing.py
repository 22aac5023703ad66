"""The pricing service as it runs, on a real broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from services.pricing.app import build_app
from services.pricing.settings import Settings
from services.pricing.stores import ANY_SHARD
from shared.bus import Bus, BusSettings, open_bus, provision
from shared.contracts.config import ConfigChanged, PriceOverride, Provider
from shared.contracts.edge import Line, UsageRecorded
from shared.contracts.message import Decoder, encode, unbundled
from shared.contracts.pricing import PRICES_BOOK, PriceBook, PriceBookPublished, UsagePriced
from shared.contracts.streams import PRICED, PRICES, USAGE
from shared.errors import Overtaken
from shared.service import FATAL
from tests.fixtures.broker import Broker
from tests.fixtures.logs import records_of
from tests.fixtures.waiting import until
from tests.unit.test_pricing_core import record

_priced = Decoder(UsagePriced)
LINE = Line(meter="input", quantity=1_000, model="claude-opus-5-5")


@asynccontextmanager
async def pricing(settings: BusSettings) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]  # any application
    app = build_app(Settings(bus=settings))
    app[FATAL] = asyncio.get_running_loop().create_future()
    async with TestClient(TestServer(app)) as client:
        yield client


async def use(bus: Bus, rid: str, **fields: object) -> UsageRecorded:
    usage = record(LINE, rid=rid, **fields)
    await bus.append(f"usage.recorded.{usage.shard}", encode(usage), msg_id=f"{rid}:{usage.kind}")
    return usage


async def priced(bus: Bus, count: int) -> list[UsagePriced]:
    """The first `count` entries of PRICED; fails when there are more."""
    found = await records_of(bus, PRICED, count)
    last = await bus.last(PRICED, ANY_SHARD)
    assert last and unbundled(last.data)[-1] == found[-1]
    return [_priced.decode(data) for data in found]


async def test_usage_is_priced_in_order_and_the_book_published_once(bus: Bus, bus_settings: BusSettings) -> None:
    wanted = [await use(bus, f"R{n}") for n in range(20)]
    async with pricing(bus_settings) as client:
        assert [entry.usage for entry in await priced(bus, 20)] == wanted
        assert (await client.get("/readyz")).status == 200
    wanted += [await use(bus, f"S{n}") for n in range(5)]
    async with pricing(bus_settings):
        found = await priced(bus, 25)
    assert [entry.usage for entry in found] == wanted
    assert [entry.usage_at.seq for entry in found] == list(range(1, 26))
    assert {entry.usage_at.log_id for entry in found} == {(await bus.end(USAGE)).log_id}
    assert {entry.cost_nano_usd for entry in found} == {4_000_000}
    assert (await bus.end(PRICES)).seq == 1
    last = await bus.last(PRICES, PRICES_BOOK)
    assert last
    published = Decoder(PriceBookPublished).decode(last.data)
    assert msgspec.json.decode(published.book, type=PriceBook).version == published.version == "2026-11-21"


async def test_a_record_waits_for_the_organisation_it_was_admitted_under(bus: Bus, bus_settings: BusSettings) -> None:
    async with pricing(bus_settings):
        await use(bus, "R", config_rev=1)
        provider = Provider(uid="P", org="O", name="anthropic", kind="anthropic", base_url="http://127.0.0.1")
        half = PriceOverride(uid="1", org="O", models=("claude-*",), scope="team:T", percent_ppm=-500_000)
        change = ConfigChanged(config_rev=1, at=1, actor="test", puts=(provider, half))
        await bus.append("config.changed", encode(change))
        (entry,) = await priced(bus, 1)
    assert (entry.list_nano_usd, entry.cost_nano_usd) == (4_000_000, 2_000_000)


async def test_bytes_that_are_no_usage_record_hold_nobody_up(bus: Bus, bus_settings: BusSettings) -> None:
    await bus.append("usage.recorded.0", b"\xc1")
    await use(bus, "R")
    async with pricing(bus_settings):
        (entry,) = await priced(bus, 1)
    assert (entry.usage.rid, entry.usage_at.seq) == ("R", 2)


async def test_shards_share_the_log_in_order(bus: Bus, bus_settings: BusSettings) -> None:
    wanted = [await use(bus, f"R{n}", shard=str(n % 3)) for n in range(30)]
    async with pricing(bus_settings):
        assert [entry.usage for entry in await priced(bus, 30)] == wanted


async def test_of_two_pricing_processes_one_ends_and_nothing_is_doubled(bus: Bus, bus_settings: BusSettings) -> None:
    async with pricing(bus_settings) as one, pricing(bus_settings) as other:
        for n in range(10):
            await use(bus, f"R{n}")
        fatal = [client.app[FATAL] for client in (one, other) if client.app]
        await until(lambda: any(future.done() for future in fatal), what="one of the two to end")
        found = await priced(bus, 10)
        ended = [future for future in fatal if future.done()]
        with pytest.raises(Overtaken):
            ended[0].result()
    assert [entry.usage.rid for entry in found] == [f"R{n}" for n in range(10)]


async def test_a_killed_broker_costs_no_entry_and_doubles_none(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    try:
        async with open_bus(broker.settings(), "test") as bus:
            await provision(bus)
            for n in range(400):
                await use(bus, f"R{n}")
            async with pricing(broker.settings()):
                await records_of(bus, PRICED, 1)
                broker.stop()
                broker.start()
                await until(lambda: bus.connected, what="the broker to come back")
                found = await priced(bus, 400)
    finally:
        broker.stop()
    assert [entry.usage.rid for entry in found] == [f"R{n}" for n in range(400)]
