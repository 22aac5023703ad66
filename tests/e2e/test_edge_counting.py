"""A prompt that only its bound keeps out is counted by the provider, once. The whole edge; provider and owner played."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from services.edge.handlers import counting
from services.edge.stores import spool_folder
from shared.contracts.budget import Denied, Granted, Reserve
from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.owner import denied, granted
from tests.fixtures.talk import ask
from tests.fixtures.upstream import Received, Script, Turn, message_json, plain, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

LONG = {"model": "claude-sonnet-5-5", "max_tokens": 900, "messages": [{"role": "user", "content": "word " * 40_000}]}
BODY = json.dumps(LONG | {"metadata": {"user_id": "u"}, "system": "be brief"}).encode()
TIGHT = msgspec.structs.replace(denied(), spent_nano_usd=400_000_000, need_nano_usd=200_000_000, input_bound=121_000)


def counts(reply: bytes) -> Script:
    """Counts with this reply, and answers messages."""

    async def script(turn: Turn) -> None:
        await turn.write(reply if b"/count_tokens" in turn.request.line else plain(message_json()))

    return script


def asked(edge: Edge) -> list[Received]:
    return [request for request in edge.upstream.requests if b"/count_tokens" in request.line]


def meters(ask: Reserve) -> list[str]:
    return [bound.meter for bound in ask.bounds]


def lets_counted_in(ask: Reserve) -> Granted | Denied:
    return granted() if "input_tokens" in meters(ask) else TIGHT


async def test_a_large_prompt_with_few_tokens_is_let_in_by_its_count(edge: Edge, tmp_path: Path) -> None:
    edge.owner.decide = lets_counted_in
    edge.upstream.script = counts(plain(b'{"input_tokens": 30000}'))
    assert (await ask(edge.port, BODY)).status == 200
    [question] = asked(edge)
    assert question.line == b"POST /v1/messages/count_tokens?beta=true HTTP/1.1"
    assert question.header("x-api-key") == b"sk-provider"
    assert json.loads(question.body) == {name: LONG[name] for name in ("model", "messages")} | {"system": "be brief"}
    first, second = edge.owner.reserves
    assert first.rid != second.rid
    assert (meters(first), meters(second)) == (["text_bytes"], ["input_tokens"])
    assert second.bounds[0].quantity == 30_600
    [usage] = await edge.usage()
    assert (usage.rid, usage.kind) == (second.rid, "settled")
    [request] = await edge.requests()
    assert (request.attempts, request.verdict) == ((second.rid,), "admitted")
    left = spool_folder.read(tmp_path / "edge", spool_folder.boot_id())
    assert left.unfinished == [], "the first attempt is forgotten"


async def test_a_prompt_that_is_too_large_by_its_count_too_is_refused_after_one_question(edge: Edge) -> None:
    edge.owner.decide = lambda ask: TIGHT
    edge.upstream.script = counts(plain(b'{"input_tokens": 30000}'))
    answer = await ask(edge.port, BODY)
    assert answer.status == 429
    assert b"could cost $0.20 (lower max_tokens, or stream)" in answer.body
    assert (len(asked(edge)), len({reserve.rid for reserve in edge.owner.reserves})) == (1, 2)
    [request] = await edge.requests()
    assert (request.verdict, request.reason, request.attempts) == ("refused", "spent", ())


@pytest.mark.parametrize(
    "reply",
    [
        plain(b'{"type":"error"}', "429 Too Many Requests"),
        plain(b"<html>", "502 Bad Gateway"),
        plain(b'{"input_tokens": 500000}'),
    ],
    ids=["an error", "a proxy's page", "more than the bound"],
)
async def test_a_count_that_does_not_help_leaves_the_refusal_as_it_was(edge: Edge, reply: bytes) -> None:
    edge.owner.decide = lets_counted_in
    edge.upstream.script = counts(reply)
    assert (await ask(edge.port, BODY)).status == 429
    assert (len(asked(edge)), len({reserve.rid for reserve in edge.owner.reserves})) == (1, 1)


async def test_a_provider_that_counts_for_too_long_is_not_waited_for(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "SECONDS", 0.2)

    async def script(turn: Turn) -> None:
        await turn.hung_up()

    edge.owner.decide, edge.upstream.script = lets_counted_in, script
    async with asyncio.timeout(2):
        assert (await ask(edge.port, BODY)).status == 429


async def test_a_small_prompt_is_refused_at_once(edge: Edge) -> None:
    edge.owner.decide = lets_counted_in
    body = json.dumps(LONG | {"messages": [{"role": "user", "content": "hi"}]}).encode()
    assert (await ask(edge.port, body)).status == 429
    assert edge.upstream.requests == []


async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(edge: Edge, tmp_path: Path) -> None:
    async def script(turn: Turn) -> None:
        await turn.hung_up()

    edge.owner.decide, edge.upstream.script = lets_counted_in, script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", BODY))
        await until(lambda: asked(edge))
        client.reset()
        [request] = await edge.requests()
    assert (request.outcome, request.attempts) == ("client_gone", ())
    assert len({reserve.rid for reserve in edge.owner.reserves}) == 1
    assert spool_folder.read(tmp_path / "edge", spool_folder.boot_id()).unfinished == []
