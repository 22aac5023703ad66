"""Edge and budget together, both as their own build_app makes them; only the provider is played."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from services.budget.settings import Settings as BudgetSettings
from services.edge.app import OWNER, build_app
from services.edge.settings import Settings
from shared.bus import Bus
from shared.contracts.budget import WITHDRAW, Granted, Withdraw
from shared.contracts.config import Credential, Entity, Key, Provider, Secret
from shared.service import PORTS
from tests.e2e.test_edge_extension import DELTA, message_end, message_start
from tests.fixtures.budget import MODEL, Asker, govern, organisation, owner_app, publish_prices, rule
from tests.fixtures.budget import ask as reserve
from tests.fixtures.talk import ask, well_formed
from tests.fixtures.upstream import Turn, Upstream, message_json, plain, upstream
from tests.fixtures.waiting import until

__all__ = ["upstream"]  # a fixture

KEY = "key:key:total"
STREAMED = {"model": MODEL, "max_tokens": 20_000, "stream": True, "messages": [{"role": "user", "content": "hi"}]}


def entities(url: str, limit_usd: float) -> list[Entity]:
    """The organisation of the budget's tests, with what an edge needs beside."""
    secret = Secret(id="1", hash=hashlib.sha256(b"vk-test").digest(), hint="vk-te")
    credentials = (Credential(id="main", ref="env:TEST_PROVIDER_KEY"),)

    def completed(each: Entity) -> Entity:
        match each:
            case Key(uid="key"):
                return msgspec.structs.replace(each, secrets=(secret,))
            case Provider():
                return msgspec.structs.replace(each, base_url=url, credentials=credentials)
        return each

    return [completed(each) for each in organisation(key=[rule("key", limit_usd, "total", queue_seconds=0)])]


@asynccontextmanager
async def gateway(bus: Bus, folder: Path, url: str, limit_usd: float) -> AsyncIterator[web.Application]:
    await publish_prices(bus)
    await govern(bus, entities(url, limit_usd))
    async with owner_app(BudgetSettings(bus=bus.settings)):
        settings = Settings(bus=bus.settings, listen_port=0, data_dir=str(folder / "edge"), drain_seconds=2.0)
        runner = web.AppRunner(build_app(settings))
        await runner.setup()
        try:
            yield runner.app
        finally:
            await runner.cleanup()


@pytest.fixture(autouse=True)
def credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PROVIDER_KEY", "sk-provider")


async def test_a_stream_that_outgrows_its_hold_gets_what_others_have_given_back(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    """$0.10: another attempt holds 0.05, so the stream begins with about 4,900 tokens and ends with 7,000."""
    asker = Asker(bus)

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(message_start() + DELTA * 20)
        withdraw = Withdraw(rid="other", edge="e1", epoch=1)
        await asker.once(withdraw, WITHDRAW)
        for _ in range(50):
            await turn.chunk(DELTA)
        await turn.chunk(message_end(7_000))
        await turn.write(b"0\r\n\r\n")

    upstream.script = script
    async with gateway(bus, tmp_path, upstream.url, 0.10) as app:
        assert isinstance(await asker.reserve(reserve("other", max_tokens=4_900)), Granted)
        answer = await ask(app[PORTS]["edge"], json.dumps(STREAMED).encode())
        assert answer.body.count(DELTA) == 70
        held = (await asker.balance(KEY)).held_nano_usd
        assert 0.07e9 < held <= 0.10e9, "it grew, and not above the cap"


@pytest.mark.alone
async def test_a_stream_in_line_for_more_gets_it_when_it_comes_free(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    """The same, but what it asks for is held by the other attempt until after it has asked."""
    asker, edge = Asker(bus), list[web.Application]()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(message_start() + DELTA * 40)
        [app] = edge
        await until(lambda: app[OWNER].of("0")._asked)
        await asker.balance(KEY)  # answered after the question before it
        await asker.once(Withdraw(rid="other", edge="e1", epoch=1), WITHDRAW)
        await until(lambda: not app[OWNER].of("0")._asked, 1.0, "the late verdict: to ask again would take two seconds")
        await turn.chunk(DELTA * 30 + message_end(7_000))
        await turn.write(b"0\r\n\r\n")

    upstream.script = script
    async with gateway(bus, tmp_path, upstream.url, 0.10) as app:
        edge.append(app)
        assert isinstance(await asker.reserve(reserve("other", max_tokens=4_900)), Granted)
        answer = await ask(app[PORTS]["edge"], json.dumps(STREAMED).encode())
        assert answer.body.count(DELTA) == 70


async def test_a_stream_that_finds_no_more_is_cut_within_the_cap_and_its_resend_refused(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(message_start())
        for _ in range(200):
            await turn.chunk(DELTA)
            await asyncio.sleep(0.001)
        await turn.hung_up()

    upstream.script = script
    async with gateway(bus, tmp_path, upstream.url, 0.06) as app:
        body = json.dumps(STREAMED).encode()
        answer = await ask(app[PORTS]["edge"], body)
        assert well_formed(answer.body)
        assert b"total budget of key 'dev'" in answer.body
        assert answer.body.count(DELTA) * 100 <= 5_900
        assert (await ask(app[PORTS]["edge"], body)).status == 429
        assert len(upstream.requests) == 1


async def test_a_large_prompt_is_let_in_on_a_tight_budget_by_its_count(
    bus: Bus, tmp_path: Path, upstream: Upstream
) -> None:
    """200 kB are held as 121,000 tokens, 0.12 of the 0.10 dollars; they are 20,000."""

    async def script(turn: Turn) -> None:
        counted = b"/count_tokens" in turn.request.line
        await turn.write(plain(b'{"input_tokens": 20000}' if counted else message_json(model=MODEL)))

    upstream.script = script
    async with gateway(bus, tmp_path, upstream.url, 0.10) as app:
        body = {"model": MODEL, "max_tokens": 1_000, "messages": [{"role": "user", "content": "word " * 40_000}]}
        assert (await ask(app[PORTS]["edge"], json.dumps(body).encode())).status == 200
        assert [b"count_tokens" in request.line for request in upstream.requests] == [True, False]
        held = (await Asker(bus).balance(KEY)).held_nano_usd
        assert held == 30_400_000, "20,400 tokens of input at 1, 1,000 of output at 10 dollars a million"
        await until(lambda: not app[OWNER].of("0")._tasks)
