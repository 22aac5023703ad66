"""Grants from the admin API to the edge: console, budget and edge as they are, on one broker; the owner's clock is ours."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from services.budget.app import OWNER
from services.budget.settings import Settings as BudgetSettings
from services.edge.app import build_app as build_edge
from services.edge.settings import Settings as EdgeSettings
from shared import clock
from shared.bus import Bus, BusSettings
from shared.contracts.config import CONFIG_CHANGED, ConfigChanged, Grant, Key
from shared.contracts.ledger import Lapsed
from shared.contracts.message import encode
from shared.directory import Directory
from shared.service import PORTS
from tests.fixtures.budget import MODEL, SECOND, USD, owner_app, publish_priced, publish_prices, usage
from tests.fixtures.console import Console, config_of, running
from tests.fixtures.governed import records
from tests.fixtures.travel import micros
from tests.fixtures.upstream import Upstream, message_json, plain, says, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["upstream"]  # a fixture

SECRET = "vk-of-the-grants-test-and-long"
DOCUMENT = """
providers:
  - {{name: anthropic, kind: anthropic, base_url: "{url}", credential: "env:TEST_PROVIDER_KEY"}}
customers:
  - id: acme
    teams:
      - id: platform
        keys: [{{id: dev, secret: {secret}, budgets: [{{limit_usd: 0, period: {period}, timezone: Europe/Berlin}}]}}]
"""
ASK = json.dumps({"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}).encode()


class Moved:
    """Real time, moved on."""

    def __init__(self) -> None:
        self._by = 0

    def __call__(self) -> int:
        return clock.now() + self._by

    def to(self, instant: str) -> None:
        self._by = micros(instant) - clock.now()


@asynccontextmanager
async def edge_app(bus: BusSettings, data_dir: Path) -> AsyncIterator[web.Application]:
    app = build_edge(EdgeSettings(bus=bus, listen_port=0, data_dir=str(data_dir), drain_seconds=2.0))
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        yield app
    finally:
        await runner.cleanup()


def key_in(directory: Directory) -> Key:
    return next(entity for entity in directory.entities.values() if isinstance(entity, Key))


async def spend(bus: Bus, rid: str, usd: float, sent_at: int) -> None:
    """As pricing tells it."""
    directory = await config_of(bus)
    key = key_in(directory)
    (provider,) = directory.providers(key.org)
    priced = usage(
        rid, nano_usd=round(usd * USD), sent_at=sent_at, provider=provider.uid, principal=directory.principal(key)
    )
    await publish_priced(bus, priced)


def state_of(owner: web.Application, key: Key) -> str:
    decided = owner[OWNER].state.decisions.get(f"key:{key.uid}")
    return decided.state if decided else ""


async def govern(console: Console, url: str, period: str) -> Key:
    await console.apply(DOCUMENT.format(url=url, secret=SECRET, period=period))
    return key_in(console.app_directory())


@pytest.mark.alone
async def test_a_top_up_opens_the_edge_within_a_second_and_taking_it_back_closes_it(
    bus: Bus, bus_settings: BusSettings, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PROVIDER_KEY", "sk-provider")
    upstream.script = says(plain(message_json()))
    await publish_prices(bus)
    async with running(bus_settings) as console:
        key = await govern(console, upstream.url, "total")
        async with owner_app(BudgetSettings(bus=bus_settings)) as owner, edge_app(bus_settings, tmp_path) as edge:

            async def asked() -> int:
                async with RawClient(edge[PORTS]["edge"]) as client:
                    client.send(post("/v1/messages", ASK, key=SECRET))
                    return (await client.answer()).status

            async def admitted() -> bool:
                return await asked() == 200

            async def refused() -> bool:
                return await asked() == 429

            await until(lambda: state_of(owner, key) == "block")
            assert await asked() == 429
            before = time.monotonic()
            told = await console.call(
                "POST",
                "/api/v1/budgets/key:dev:total/grants",
                {"amount_usd": "2.50", "note": "first"},
                status=201,
            )
            await until(admitted)
            assert time.monotonic() - before < 1.0
            assert told["balance"]["limit_nano_usd"] == told["balance"]["granted_nano_usd"] == 2_500_000_000
            assert (told["balance"]["blocked"], told["grant"]["actor"]) == (False, "admin")

            (rid,) = owner[OWNER].state.holds
            await spend(bus, rid, 0.001, clock.now())
            await until(lambda: rid in owner[OWNER].state.closings)
            before, path = time.monotonic(), f"/api/v1/budgets/key:dev:total/grants/{told['grant']['uid']}"
            told = await console.call("DELETE", path)
            await until(refused)
            assert time.monotonic() - before < 1.0
            assert told["grant"]["ended"]
            assert told["balance"]["limit_nano_usd"] == told["balance"]["spent_nano_usd"] == 1_000_000
            assert (await console.call("DELETE", path))["config_rev"] == told["config_rev"]
            (listed,) = (await console.call("GET", "/api/v1/budgets/key:dev:total/grants"))["items"]
            assert (listed["amount_nano_usd"], listed["note"], listed["ended"]) == (2_500_000_000, "first", True)


async def test_a_grant_that_ends_in_a_night_in_which_clocks_change_blocks_again_and_stays_so_in_the_ledger(
    bus: Bus, bus_settings: BusSettings
) -> None:
    moved = Moved()
    moved.to("2027-03-27T23:30:00Z")  # half past midnight in Berlin; the hour from two to three does not exist
    await publish_prices(bus)
    async with running(bus_settings) as console:
        key = await govern(console, "http://127.0.0.1:9", "day")
        grant = Grant(
            uid="G",
            org=key.org,
            budget_id=f"key:{key.uid}:day",
            nano_usd=USD,
            granted_at=moved(),
            expires_at=micros("2027-03-28T04:00:00Z"),  # six o'clock there
        )
        rev = console.app_directory().config_rev + 1
    settings = BudgetSettings(bus=bus_settings)
    async with owner_app(settings, moved) as owner:
        await until(lambda: state_of(owner, key) == "block")
        change = ConfigChanged(config_rev=rev, at=moved(), actor="test", puts=(grant,))
        await bus.append(CONFIG_CHANGED, encode(change))
        await until(lambda: state_of(owner, key) == "unblock")
        await spend(bus, "r1", 0.4, moved())
        await until(lambda: "r1" in owner[OWNER].state.closings)
        moved.to("2027-03-28T03:59:57Z")
        assert owner[OWNER].state.lapsed == {}
        await until(lambda: state_of(owner, key) == "block")
        assert moved() >= grant.expires_at
        assert owner[OWNER].state.lapsed == {"G": 2 * USD // 5}
    async with owner_app(settings, moved) as owner:
        assert owner[OWNER].state.lapsed == {"G": 2 * USD // 5}
        assert state_of(owner, key) == "block"
        moved.to("2027-03-28T22:00:00Z")  # a day of 23 hours is over
        await until(lambda: owner[OWNER].now() > grant.expires_at + 17 * 3_600 * SECOND)
    events = [event for commit in await records(bus) for event in commit.events]
    assert len([event for event in events if isinstance(event, Lapsed)]) == 1
