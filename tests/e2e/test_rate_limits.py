"""Rate limits with everything real but the provider: two edges, one owner, pricing, and the broker between them."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from services.budget.settings import Settings as BudgetSettings
from services.edge.app import build_app as build_edge
from services.edge.settings import Settings as EdgeSettings
from services.pricing.app import build_app as build_pricing
from services.pricing.settings import Settings as PricingSettings
from shared.bus import Bus, BusSettings
from shared.clock import now
from shared.contracts.config import Entity, Key, ModelRateLimits, RateLimits, Team
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Entry
from shared.contracts.message import Decoder
from shared.contracts.streams import REQUESTS
from shared.service import FATAL, PORTS
from tests.fixtures import organisation
from tests.fixtures.budget import owner_app
from tests.fixtures.governed import records
from tests.fixtures.logs import records_of
from tests.fixtures.upstream import Turn, Upstream, message_json, plain, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import Answer, RawClient, post

__all__ = ["upstream"]  # fixture

_completed = Decoder(RequestCompleted)
SMALL = json.dumps(
    {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
).encode()


class Fleet:
    """Two edges before one owner of the ledger. offset: by how many microseconds the owner's clock is ahead."""

    def __init__(self, settings: BusSettings) -> None:
        self.ports: list[int] = []
        self.offset = 0
        self._settings = settings
        self._owner: AsyncExitStack | None = None

    async def start_owner(self) -> None:
        self._owner = AsyncExitStack()
        await self._owner.enter_async_context(
            owner_app(BudgetSettings(bus=self._settings), lambda: now() + self.offset)
        )

    async def stop_owner(self) -> None:
        assert self._owner
        await self._owner.aclose()

    async def ask(self, client: int, body: bytes = SMALL, secret: str = organisation.SECRET) -> Answer:
        """By turns at either edge."""
        async with RawClient(self.ports[client % 2]) as raw:
            raw.send(post("/v1/messages", body, key=secret))
            return await raw.answer(30)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[web.Application]:
    app[FATAL] = asyncio.get_running_loop().create_future()
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        yield app
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fleet(
    bus: Bus,
    upstream: Upstream,
    tmp_path: Path,
    *before: Entity,
    team: RateLimits | None = None,
    key: RateLimits | None = None,
) -> AsyncIterator[Fleet]:
    """With these limits on the one team and its one key. before: providers that are tried before the one that works."""

    def limited(entity: Entity) -> Entity:
        limits = team if isinstance(entity, Team) else key if isinstance(entity, Key) else None
        return msgspec.structs.replace(entity, rate_limits=limits) if limits else entity

    await organisation.publish(bus, (*before, *map(limited, organisation.entities(upstream.url))))
    made = Fleet(bus.settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(build_pricing(PricingSettings(bus=bus.settings))))
        await made.start_owner()
        stack.push_async_callback(made.stop_owner)
        for name in ("one", "two"):
            settings = EdgeSettings(bus=bus.settings, listen_port=0, data_dir=str(tmp_path / name), drain_seconds=2.0)
            made.ports.append((await stack.enter_async_context(serving(build_edge(settings))))[PORTS]["edge"])
        yield made


@pytest.fixture(autouse=True)
def credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PROVIDER_KEY", "sk-provider")


def wait_of(answer: Answer) -> int:
    return int(answer.header("retry-after") or 0)


async def test_a_limit_of_requests_is_exact_over_two_edges_and_a_restart_of_the_owner(
    bus: Bus, upstream: Upstream, tmp_path: Path
) -> None:
    async with fleet(bus, upstream, tmp_path, team=RateLimits(requests_per_minute=20)) as running:
        first = await asyncio.gather(*(running.ask(client) for client in range(12)))
        assert [answer.status for answer in first] == [200] * 12
        await running.stop_owner()
        asking = [asyncio.create_task(running.ask(client)) for client in range(38)]
        await running.start_owner()
        answers = await asyncio.gather(*asking)
        assert Counter(answer.status for answer in answers) == {200: 8, 429: 30}
        assert len(upstream.requests) == 20
        refused = next(answer for answer in answers if answer.status == 429)
        error = json.loads(refused.body)["error"]
        assert error["type"] == "rate_limit_error"
        assert "team 'platform' has used 20 of its 20 requests per minute; retry at " in error["message"]
        assert f"({wait_of(refused)} s). Ask platform@acme.example for an increase." in error["message"]
        assert refused.header("x-should-retry") is None
        assert {0 < wait_of(answer) <= 60 for answer in answers if answer.status == 429} == {True}
        again = await running.ask(0)
        running.offset += (wait_of(again) - 2) * 1_000_000
        assert (await running.ask(1)).status == 429
        running.offset += 2_000_000
        assert (await running.ask(0)).status == 200
        rows = await completed(bus, 53)
    assert Counter((row.verdict, row.reason) for row in rows) == {("admitted", ""): 21, ("refused", "rate_limited"): 32}
    assert {row.budget_id for row in rows if row.verdict == "refused"} == {"team:team:requests_per_minute"}


async def completed(bus: Bus, count: int) -> list[RequestCompleted]:
    return [_completed.decode(data) for data in await records_of(bus, REQUESTS, count)]


async def test_never_more_calls_than_allowed_are_at_the_provider_at_once(
    bus: Bus, upstream: Upstream, tmp_path: Path
) -> None:
    """Forty calls of clients that come back as soon as they are refused; all of them are served in the end."""
    flying = peak = 0

    async def script(turn: Turn) -> None:
        nonlocal flying, peak
        flying += 1
        peak = max(peak, flying)
        await asyncio.sleep(0.03)
        flying -= 1
        await turn.write(plain(message_json()))

    upstream.script = script
    waits: list[int] = []
    async with fleet(bus, upstream, tmp_path, key=RateLimits(concurrent_requests=5)) as running:

        async def served(client: int) -> None:
            while (answer := await running.ask(client)).status != 200:
                assert answer.status == 429, answer
                waits.append(wait_of(answer))
                await asyncio.sleep(0.02)

        await asyncio.gather(*(served(client) for client in range(40)))
    assert (peak, len(upstream.requests)) == (5, 40)
    assert set(waits) <= {1, 2, 3, 4, 5}
    assert len(set(waits)) > 1, "told to all at once, they would all come back at once"


async def test_tokens_of_some_models_are_counted_as_the_provider_reports_them(
    bus: Bus, upstream: Upstream, tmp_path: Path
) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 3_000, "output_tokens": 990}
    upstream.script = lambda turn: turn.write(plain(message_json(usage=usage)))
    models = {"claude-sonnet-*": ModelRateLimits(tokens_per_minute=8_050)}
    other = SMALL.replace(b"sonnet-5-5", b"opus-5-5")
    async with fleet(bus, upstream, tmp_path, key=RateLimits(models=models)) as running:
        assert (await running.ask(0)).status == 200
        assert (await running.ask(0, other)).status == 200
        await booked(bus, 2)
        large = await running.ask(1, SMALL.replace(b"100", b"4096"))
        assert large.status == 429
        message = json.loads(large.body)["error"]["message"]
        assert (
            "has used 4,000 of its 8,050 tokens per minute for claude-sonnet-*, and this request may take " in message
        )
        assert 0 < wait_of(large) <= 60
        assert (await running.ask(1)).status == 200
        await booked(bus, 3)
        assert "has used 8,000 of its 8,050 tokens" in (await running.ask(0)).body.decode()
        assert (await running.ask(0, other)).status == 200


async def booked(bus: Bus, count: int) -> None:
    """Return when so many calls are closed in the ledger."""

    async def enough() -> bool:
        return sum(isinstance(event, Entry) for commit in await records(bus) for event in commit.events) >= count

    await until(enough, what=f"{count} entries")


async def test_a_request_that_falls_back_to_another_provider_is_one_request(
    bus: Bus, upstream: Upstream, tmp_path: Path
) -> None:
    limits = RateLimits(requests_per_hour=2, concurrent_requests=1, tokens_per_hour=350)
    away = organisation.provider("http://127.0.0.1:1", uid="away")
    async with fleet(bus, upstream, tmp_path, away, key=limits) as running:
        rows: list[RequestCompleted] = []
        for count in (1, 2):
            answer = await running.ask(0)
            assert answer.status == 200, answer.body
            rows = await completed(bus, count)
            await booked(bus, 2 * count)
        assert [len(row.attempts) for row in rows] == [2, 2]
        assert b"has used 2 of its 2 requests per hour" in (await running.ask(1)).body


async def test_what_never_reserves_does_not_count_and_is_not_limited(
    bus: Bus, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script = lambda turn: turn.write(
        plain(b'{"input_tokens": 9}' if b"count_tokens" in turn.request.line else message_json())
    )
    async with fleet(bus, upstream, tmp_path, key=RateLimits(requests_per_day=1)) as running:

        async def count() -> int:
            async with RawClient(running.ports[0]) as client:
                client.send(post("/v1/messages/count_tokens", SMALL))
                return (await client.answer()).status

        assert [await count() for _ in range(5)] == [200] * 5
        assert (await running.ask(0)).status == 200
        refused = await running.ask(1)
        assert refused.status == 429
        assert 86_300 < wait_of(refused) <= 86_400
        assert [await count() for _ in range(5)] == [200] * 5


async def test_a_request_that_can_never_fit_is_refused_for_good(bus: Bus, upstream: Upstream, tmp_path: Path) -> None:
    async with fleet(bus, upstream, tmp_path, key=RateLimits(tokens_per_minute=50)) as running:
        refused = await running.ask(0)
    assert (refused.status, refused.header("x-should-retry"), refused.header("retry-after")) == (429, b"false", None)
    assert "the limit of key 'key' is 50 tokens per minute" in json.loads(refused.body)["error"]["message"]
    assert upstream.requests == []
