"""What the owner of the ledger refuses to start on, and what it waits for."""

import asyncio
from pathlib import Path

import pytest

from services.budget.settings import Settings
from services.budget.stores import LogUnfit
from shared.bus import Bus, BusSettings, provision
from shared.contracts.budget import Granted
from shared.contracts.message import encode
from shared.contracts.streams import PRICED, Names
from shared.errors import Unavailable
from tests.fixtures.broker import Broker
from tests.fixtures.budget import Asker, ask, govern, organisation, owner_app, publish_prices
from tests.fixtures.governed import governed, installation, records, settings_of

__all__ = ["governed"]  # a fixture


async def test_a_broker_that_does_not_sync_is_refused_unless_it_is_accepted(tmp_path: Path) -> None:
    async with installation(Broker(tmp_path, sync="2m")) as bus:
        with pytest.raises(LogUnfit, match="sync_interval"):
            async with owner_app(settings_of(bus)):
                pass
        async with owner_app(settings_of(bus, allow_unsynced_broker=True)):
            assert isinstance(await Asker(bus).reserve(ask()), Granted)


async def test_a_priced_log_made_anew_is_refused(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        pass
    await governed.client.jetstream().delete_stream(Names(governed.settings.prefix).stream(PRICED))
    await provision(governed)
    with pytest.raises(LogUnfit, match="PRICED was made anew"):
        async with owner_app(settings_of(governed)):
            pass


async def test_a_ledger_whose_chain_is_broken_is_refused(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        await Asker(governed).reserve(ask())
    forged = (await records(governed))[-1]
    await governed.append("ledger.0", encode(forged))
    with pytest.raises(LogUnfit, match="digest"):
        async with owner_app(settings_of(governed)):
            pass


async def test_it_waits_for_a_price_book(bus: Bus) -> None:
    await govern(bus, organisation())
    settings = Settings(bus=bus.settings)

    async def start() -> None:
        async with owner_app(settings):
            assert isinstance(await Asker(bus).reserve(ask()), Granted)

    starting = asyncio.create_task(start())
    with pytest.raises(Unavailable):
        await Asker(bus).once(ask(), "budget.{shard}.reserve", timeout=0.2)
    await publish_prices(bus)
    await starting


async def test_without_a_broker_the_start_fails_at_once(tmp_path: Path) -> None:
    nowhere = BusSettings(url=Broker(tmp_path).url, connect_timeout_seconds=0.5)
    with pytest.raises(Unavailable):
        async with owner_app(Settings(bus=nowhere)):
            pass
