"""Leases between the real edge and the real owner; only the provider is played."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from services.budget.settings import Settings as BudgetSettings
from services.edge.app import LENDER, build_app
from services.edge.settings import Settings
from shared.bus import Bus, open_bus, provision
from shared.contracts.ledger import Held, Leased, LedgerEvent, Returned
from shared.service import PORTS
from tests.e2e.test_edge_budget import entities
from tests.fixtures.broker import Broker
from tests.fixtures.budget import MODEL, Asker, govern, owner_app, publish_prices
from tests.fixtures.governed import records
from tests.fixtures.talk import FIRST_TURN, ask
from tests.fixtures.upstream import Turn, Upstream, message_json, plain, says, upstream
from tests.fixtures.waiting import until

pytestmark = pytest.mark.alone

__all__ = ["upstream"]  # a fixture

KEY = "key:key:total"
QUESTION = {"model": MODEL, "max_tokens": 1_000, "messages": [{"role": "user", "content": "hi"}]}
ASK, STREAMED = json.dumps(QUESTION).encode(), json.dumps(QUESTION | {"stream": True}).encode()


@pytest.fixture(autouse=True)
def credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PROVIDER_KEY", "sk-provider")


async def prepared(bus: Bus, upstream: Upstream, limit_usd: float = 100) -> None:
    """Prices, and a key with this budget."""
    upstream.script = says(plain(message_json()))
    await publish_prices(bus)
    await govern(bus, entities(upstream.url, limit_usd))


@asynccontextmanager
async def edge(bus: Bus, folder: Path, **changes: object) -> AsyncIterator[web.Application]:
    """With little patience with an owner that is away."""
    settings = Settings(
        bus=bus.settings,
        listen_port=0,
        data_dir=str(folder / "edge"),
        drain_seconds=2.0,
        queue_seconds=0.5,
    )
    runner = web.AppRunner(build_app(msgspec.structs.replace(settings, **changes)))
    await runner.setup()
    try:
        yield runner.app
    finally:
        await runner.cleanup()


@asynccontextmanager
async def away_at_will(folder: Path) -> AsyncIterator[tuple[Broker, Bus]]:
    """A broker of the test's own."""
    broker = Broker(folder / "nats")
    broker.start()
    try:
        async with open_bus(broker.settings(), "test") as bus:
            await provision(bus)
            yield broker, bus
    finally:
        broker.stop()


async def statuses(app: web.Application, many: int) -> list[int]:
    return [(await ask(app[PORTS]["edge"], ASK)).status for _ in range(many)]


async def events(bus: Bus) -> list[LedgerEvent]:
    return [event for commit in await records(bus) for event in commit.events]


async def warm(bus: Bus, app: web.Application) -> None:
    """Until the edge has a lease that outlasts what comes."""
    await statuses(app, 12)

    async def lent() -> bool:
        return app[LENDER].nano_usd >= 6 * 11_000_000

    for _ in range(5):
        try:
            await until(lent, 1.0)
        except AssertionError:
            await statuses(app, 6)
        else:
            return
    raise AssertionError(f"{app[LENDER].nano_usd} nano-USD are not enough")


async def test_an_edge_far_from_the_cap_goes_on_while_budget_is_away(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    await prepared(bus, upstream)
    async with edge(bus, tmp_path) as app:
        async with owner_app(BudgetSettings(bus=bus.settings)):
            await warm(bus, app)
        began = time.monotonic()
        assert await statuses(app, 5) == [200] * 5
        assert time.monotonic() - began < 2.0, "somebody was asked who is not there"
        async with owner_app(BudgetSettings(bus=bus.settings)):
            sent = len(upstream.requests)

            async def told() -> bool:
                return sum(isinstance(event, Held) for event in await events(bus)) == sent

            await until(told, what="every attempt in the ledger")
            assert sum(bool(event.lease) for event in await events(bus) if isinstance(event, Held)) >= 5
    assert sent == len(upstream.requests)


async def test_when_the_lease_is_used_up_the_owner_decides_again(bus: Bus, tmp_path: Path, upstream: Upstream) -> None:
    await prepared(bus, upstream)
    async with edge(bus, tmp_path) as app:
        async with owner_app(BudgetSettings(bus=bus.settings)):
            await warm(bus, app)
        lent = app[LENDER].nano_usd
        found = [await statuses(app, 1) for _ in range(lent // 11_000_000 + 1)]
        assert found[-1] == [503]
        assert all(status == [200] for status in found[:-1])


async def test_a_stream_is_extended_though_budget_has_only_just_been_told_of_it(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    """The provider counts more input than the body has bytes: the output's hold pays for it, and is too small at once."""

    async def in_two_parts(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:800])
        await asyncio.sleep(0.2)
        await turn.chunk(FIRST_TURN[800:])
        await turn.write(b"0\r\n\r\n")

    await prepared(bus, upstream)
    async with owner_app(BudgetSettings(bus=bus.settings)), edge(bus, tmp_path) as app:
        await warm(bus, app)
        upstream.script = in_two_parts
        assert (await ask(app[PORTS]["edge"], STREAMED)).body == FIRST_TURN
        rid = [event.rid for event in await events(bus) if isinstance(event, Held) and event.stream and event.lease]
        assert rid, "it was to be paid from a lease"


async def test_an_edge_that_is_cut_off_draws_on_no_lease_for_long(tmp_path: Path, upstream: Upstream) -> None:
    """It would not hear that a key is revoked."""
    async with away_at_will(tmp_path) as (broker, bus):
        await prepared(bus, upstream)
        async with edge(bus, tmp_path, status_interval_seconds=0.5) as app:
            async with owner_app(BudgetSettings(bus=bus.settings)):
                await warm(bus, app)
            broker.stop()
            assert await statuses(app, 1) == [200]
            assert app[LENDER].can_admit
            await until(lambda: not app[LENDER].can_admit, 5.0)
            assert app[LENDER].nano_usd > 0, "it is time that ends it, not money"
            assert await statuses(app, 1) == [503]
            broker.start()
            await until(lambda: app[LENDER].can_admit, 10.0)
            assert await statuses(app, 1) == [200]


async def test_an_edge_that_stops_gives_back_what_it_has_not_drawn(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    await prepared(bus, upstream)
    async with owner_app(BudgetSettings(bus=bus.settings)):
        async with edge(bus, tmp_path) as app:
            await warm(bus, app)
        found = await events(bus)
        leased, returned = ([e.lease for e in found if isinstance(e, kind)] for kind in (Leased, Returned))
        assert sorted(leased) == sorted(returned)
        held = sum(event.nano_usd for event in found if isinstance(event, Held))
        assert (await Asker(bus).balance(KEY)).held_nano_usd == held


async def test_a_changed_organisation_ends_every_lease(bus: Bus, tmp_path: Path, upstream: Upstream) -> None:
    await prepared(bus, upstream)
    async with owner_app(BudgetSettings(bus=bus.settings)), edge(bus, tmp_path) as app:
        await warm(bus, app)
        await govern(bus, entities(upstream.url, 0.5), rev=2)
        await until(lambda: app[LENDER].nano_usd == 0)

        async def returned() -> bool:
            found = await events(bus)
            kinds = (Leased, Returned)
            leased, back = (sum(isinstance(event, kind) for event in found) for kind in kinds)
            return leased == back

        await until(returned)


async def test_near_the_cap_every_request_is_decided_by_the_owner(bus: Bus, tmp_path: Path, upstream: Upstream) -> None:
    await prepared(bus, upstream, 0.30)
    async with (
        owner_app(BudgetSettings(bus=bus.settings)),
        edge(bus, tmp_path) as app,
    ):
        assert await statuses(app, 6) == [200] * 6
        await asyncio.gather(*app[LENDER].asking)
        assert not any(isinstance(event, Leased) for event in await events(bus))
