"""/readyz says whether new streams can be taken under the configured fail mode, while the broker is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from services.edge.app import CONFIG, LENDER, build_app
from services.edge.settings import Settings
from shared.bus import open_bus, provision
from shared.contracts.config import BudgetRule
from shared.service import READY
from tests.fixtures import organisation
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import until

HARD = BudgetRule(id="key:key:day", limit_nano_usd=1, period="day")
SOFT = BudgetRule(id="key:key:day", limit_nano_usd=1, period="day", mode="soft")


@asynccontextmanager
async def edge(broker: Broker, tmp_path: Path, rule: BudgetRule) -> AsyncIterator[web.Application]:
    """Its only key has this budget. Who asks the owner gives up after 0.3 s."""
    settings = Settings(
        bus=broker.settings(rule.mode), listen_port=0, data_dir=str(tmp_path / rule.mode), queue_seconds=0.3
    )
    async with open_bus(settings.bus, "test") as bus:
        await provision(bus)
        provider = organisation.entities("http://127.0.0.1:1")
        await organisation.publish(bus, (*provider, organisation.key(budgets=(rule,))))
    app = build_app(settings)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await until(lambda: app[CONFIG].directory.config_rev == 1)
        assert app[READY]()
        yield app
    finally:
        await runner.cleanup()


async def test_under_hard_budgets_alone_it_is_not_ready_while_the_broker_is_away(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        async with edge(broker, tmp_path, HARD) as app:
            broker.stop()
            await until(lambda: not app[READY]())
            broker.start()
            await until(app[READY])
    finally:
        broker.stop()


async def test_it_stays_ready_where_something_passes_without_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        async with edge(broker, tmp_path, HARD) as leased, edge(broker, tmp_path, SOFT) as open_:
            broker.stop()
            await until(lambda: not leased[READY]())
            assert open_[READY](), "it passes, ungoverned"
            monkeypatch.setattr(type(leased[LENDER]), "nano_usd", 1)
            assert leased[READY](), "there is money on a lease"
    finally:
        broker.stop()
