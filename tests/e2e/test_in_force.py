"""A change is in force on every edge within a second, and whoever made it is told so, and who lags."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from services.budget.app import OWNER
from services.edge.app import CONFIG, PRESENCE, SPOOL, build_app
from services.edge.settings import Settings
from shared.bus import Bus, BusSettings
from shared.contracts.config import Key
from shared.contracts.streams import EDGES
from shared.settings import environ_of
from tests.fixtures.budget import owner_app, publish_prices
from tests.fixtures.console import DOCUMENT, Console
from tests.fixtures.console import running as console_running
from tests.fixtures.governed import settings_of
from tests.fixtures.waiting import until

pytestmark = pytest.mark.alone

EDGES_RUNNING = 8
KEY = "acme%2Fplatform%2Fdev-asha"


@pytest.fixture
async def console(bus: Bus, bus_settings: BusSettings) -> AsyncIterator[Console]:
    """A console and an owner, with an organisation in force."""
    await publish_prices(bus)
    async with console_running(bus_settings) as made:
        await made.apply(DOCUMENT)
        async with owner_app(settings_of(bus)) as owner:
            made.app = owner  # the one that tests look into
            yield made


@asynccontextmanager
async def edges(
    settings: BusSettings, folder: Path, count: int = EDGES_RUNNING
) -> AsyncIterator[list[web.Application]]:
    """In this process, each with its own spool and connection."""
    async with AsyncExitStack() as stack:
        made = []
        for number in range(count):
            app = build_app(Settings(bus=settings, listen_port=0, data_dir=str(folder / f"edge-{number}")))
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            made.append(app)
        yield made


async def test_a_revoked_key_is_refused_on_all_edges_when_the_call_returns(
    console: Console, bus_settings: BusSettings, tmp_path: Path
) -> None:
    async with edges(bus_settings, tmp_path) as running:
        found = (await console.call("POST", f"/api/v1/keys/{KEY}/revoke?wait=1s"))["in_force"]
        print(f"revoked on {len(found['edges'])} edges after {found['waited_ms']} ms")  # noqa: T201 # a figure to report
        for app in running:
            key = next(e for e in app[CONFIG].directory.entities.values() if isinstance(e, Key) and e.id == "dev-asha")
            assert key.revoked_at
    assert found["complete"]
    assert found["waited_ms"] < 1_000
    assert found["lagging"] == []
    assert {edge["edge"] for edge in found["edges"]} == {app[SPOOL].identity.edge for app in running}
    assert [(shard["shard"], shard["lagging"]) for shard in found["shards"]] == [("0", False)]


async def test_a_lowered_cap_blocks_on_all_edges_when_the_call_returns(
    console: Console, bus_settings: BusSettings, tmp_path: Path
) -> None:
    async with edges(bus_settings, tmp_path) as running:
        state = console.app[OWNER].state
        directory = running[0][CONFIG].directory
        key = next(e for e in directory.entities.values() if isinstance(e, Key) and e.id == "dev-asha")
        budget_id = key.budgets[0].id
        await until(lambda: state.config_rev == directory.config_rev)
        nothing = await console.call("PATCH", f"/api/v1/budgets/{budget_id}?wait=1", {"limit_usd": 0})
        path = directory.principal(key)
        refused = [app[PRESENCE].blocked(path) for app in running]
    found = nothing["in_force"]
    print(f"blocked on {len(found['edges'])} edges after {found['waited_ms']} ms")  # noqa: T201 # a figure to report
    assert found["complete"]
    assert found["waited_ms"] < 1_000
    assert [denied.budget_id for denied in refused if denied] == [budget_id] * EDGES_RUNNING
    assert {edge["decision_version"] for edge in found["edges"]} <= {0, state.version}


async def test_a_frozen_edge_is_named_and_nobody_waits_longer_than_asked(
    console: Console, bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    settings = Settings(bus=bus_settings, listen_port=0, data_dir=str(tmp_path / "frozen"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.edge"), env=os.environ | environ_of(settings, "EDGE"), stderr=DEVNULL
    )
    try:
        async with edges(bus_settings, tmp_path, EDGES_RUNNING - 1) as running:
            good = {app[SPOOL].identity.edge for app in running}
            frozen = await until(lambda: _other(bus, good), what="the edge to sign on")
            first = (await console.call("POST", "/api/v1/keys/dev-omar/rotate?wait=5", {}))["in_force"]
            assert (first["complete"], len(first["edges"])) == (True, EDGES_RUNNING)
            process.send_signal(signal.SIGSTOP)
            found = (await console.call("POST", f"/api/v1/keys/{KEY}/revoke?wait=0.5"))["in_force"]
            assert not found["complete"]
            assert found["lagging"] == [frozen]
            assert 500 <= found["waited_ms"] < 1_500
            assert {edge["edge"] for edge in found["edges"] if edge["config_rev"] == found["config_rev"]} == good
            process.send_signal(signal.SIGCONT)
            again = (await console.call("POST", f"/api/v1/keys/{KEY}/revoke?wait=5"))["in_force"]
            assert again["complete"], "revoking again changes nothing, and asks again who has it"
    finally:
        process.kill()
        await process.wait()


async def _other(bus: Bus, known: set[str]) -> str:
    """The edge that is registered and not among these."""
    found = (await bus.values(EDGES)).keys() - known
    return found.pop() if found else ""


async def test_without_wait_nothing_is_waited_for_and_a_wrong_one_changes_nothing(console: Console) -> None:
    made = await console.call("POST", f"/api/v1/keys/{KEY}/rotate", {})
    assert "in_force" not in made
    for wrong in ("soon", "-1", "11", "nan"):
        error = (await console.call("POST", f"/api/v1/keys/{KEY}/revoke?wait={wrong}", status=400))["error"]
        assert error["field"] == "wait"
    assert (await console.call("GET", f"/api/v1/keys/{KEY}"))["state"] == "active"


async def test_an_owner_that_is_away_is_told_beside_the_edges(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    await publish_prices(bus)
    async with console_running(bus_settings) as console, edges(bus_settings, tmp_path, 1):
        found = (await console.apply(DOCUMENT, "?wait=0.3"))["in_force"]
    assert [(shard["shard"], shard["config_rev"], shard["lagging"]) for shard in found["shards"]] == [("0", 0, True)]
    assert found["lagging"] == []
    assert not found["complete"]
