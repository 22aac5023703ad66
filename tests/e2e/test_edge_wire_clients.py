"""Clients that leave, half-close, are refused, cut, slow or only ask; the whole edge, provider and owner played."""

import asyncio
import json

import pytest

from services.edge.app import SERVER
from tests.fixtures.edge import Edge, Start, edge, start_edge
from tests.fixtures.owner import denied, granted
from tests.fixtures.talk import ASK, FIRST_TURN, PLAIN, STREAMED, ask, captured, well_formed
from tests.fixtures.upstream import CAPTURES, Turn, plain, says, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

SSE = {path.stem: path.read_bytes() for path in sorted(CAPTURES.glob("*.sse"))}
MESSAGES = [path for path in sorted(CAPTURES.glob("[01]*-[0-9]*.json")) if "/v1/messages?" in path.read_text()]
DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n'
)


@pytest.mark.alone
async def test_a_client_that_leaves_closes_the_provider_s_connection_within_100_ms(edge: Edge) -> None:
    closed = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:800])
        await turn.hung_up()
        closed.set()

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:200])
        client.close()
        await asyncio.wait_for(closed.wait(), 0.1)
    [usage] = await edge.usage()
    assert (usage.outcome, usage.estimated, usage.kind) == ("client_gone", True, "settled")
    assert {line.meter for line in usage.lines} >= {"input"}
    [request] = await edge.requests()
    assert (request.verdict, request.outcome) == ("admitted", "client_gone")


async def test_a_client_that_leaves_before_the_verdict_leaves_nothing_held(edge: Edge) -> None:
    edge.owner.decide = None
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await until(lambda: edge.owner.reserves)
        client.close()
        await until(lambda: edge.owner.withdrawn)
    assert edge.upstream.requests == []
    [usage] = await edge.usage()
    assert (usage.kind, usage.outcome) == ("void", "not_sent")
    assert (await edge.requests())[0].outcome == "client_gone"


async def test_a_half_closed_client_gets_the_whole_stream(edge: Edge) -> None:
    """What is sent to find out whether it still reads must not show in the answer."""
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:333])
        await gate.wait()
        await turn.chunk(FIRST_TURN[333:])
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:200])
        client.finish_sending()
        await asyncio.sleep(0.2)
        gate.set()
        answer = await client.answer()
    assert (answer.body, answer.whole) == (FIRST_TURN, True)


async def test_a_denied_request_never_reaches_the_provider(edge: Edge) -> None:
    edge.owner.decide = lambda ask: denied()
    answer = await ask(edge.port)
    error = json.loads(answer.body)
    assert (answer.status, error["error"]["type"], answer.header("x-should-retry")) == (429, "billing_error", b"false")
    assert error["request_id"].encode() == answer.header("request-id")
    assert edge.upstream.requests == []
    [request] = await edge.requests()
    assert (request.verdict, request.reason, request.budget_id) == ("refused", "spent", "key:key:month")


@pytest.mark.parametrize("key", ["vk-wrong", ""])
async def test_an_unknown_key_is_refused_for_good(edge: Edge, key: str) -> None:
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED, key=key))
        answer = await client.answer()
    assert (answer.status, answer.header("x-should-retry")) == (401, b"false")
    assert edge.owner.reserves == []


async def test_a_stream_is_cut_at_its_hold_with_a_billing_error(edge: Edge) -> None:
    edge.owner.decide = lambda ask: granted(output_tokens=300)
    start = FIRST_TURN[: FIRST_TURN.find(b"event: content_block_delta")]
    closed = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        try:
            await turn.chunk(start)
            for _ in range(200):
                await turn.chunk(DELTA % (b"word " * 10))
                await asyncio.sleep(0)
            await turn.hung_up()
        finally:
            closed.set()

    edge.upstream.script = script
    answer = await ask(edge.port)
    assert well_formed(answer.body)
    assert b"billing_error" in answer.body
    assert b"content_block_stop" in answer.body
    await asyncio.wait_for(closed.wait(), 2)
    assert edge.owner.cuts
    [usage] = await edge.usage()
    assert (usage.outcome, usage.estimated) == ("cut", True)
    made = sum(line.quantity for line in usage.lines if line.meter in {"output", "thinking"})
    assert 0 < made <= 300


async def test_a_hold_that_covers_the_request_is_never_cut(edge: Edge) -> None:
    edge.owner.decide = lambda ask: granted(output_tokens=ask.max_tokens)
    body = json.dumps(ASK | {"stream": True, "max_tokens": 20}).encode()
    edge.upstream.script = says(stream(FIRST_TURN))
    assert (await ask(edge.port, body)).body == FIRST_TURN


async def test_silence_is_filled_with_pings_between_events_only(start_edge: Start) -> None:
    boundary = FIRST_TURN.find(b"\n\n") + 2

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:boundary])
        await asyncio.sleep(0.35)
        await turn.chunk(FIRST_TURN[boundary : boundary + 10])
        await asyncio.sleep(0.35)
        await turn.chunk(FIRST_TURN[boundary + 10 :])
        await turn.write(b"0\r\n\r\n")

    async with start_edge(heartbeat_seconds=0.1) as edge:
        edge.upstream.script = script
        answer = await ask(edge.port)
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    pings = answer.body.count(ping) - FIRST_TURN.count(ping)
    assert 2 <= pings <= 3
    assert answer.body.replace(ping, b"") == FIRST_TURN.replace(ping, b"")


async def test_a_silent_provider_is_given_up_after_the_idle_limit(start_edge: Start) -> None:
    async def script(turn: Turn) -> None:
        await turn.hung_up()

    async with start_edge(heartbeat_seconds=0.1, upstream_idle_timeout_seconds=0.3) as edge:
        edge.upstream.script = script
        assert (await ask(edge.port)).status == 503
        assert (await edge.usage())[0].outcome == "upstream_broken"


async def test_a_slow_reader_holds_back_the_provider_not_the_memory(edge: Edge) -> None:
    event = b'event: other\ndata: {"x":"' + b"y" * 10_000 + b'"}\n\n'
    sent = 0

    async def script(turn: Turn) -> None:
        nonlocal sent
        await turn.start_stream()
        for _ in range(5000):
            await turn.chunk(event)
            sent += len(event)
        await turn.chunk(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    async with RawClient(edge.port, receive_buffer=8192) as client:
        client.send(post("/v1/messages", STREAMED))
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the reader's own transport
        last = -1
        while last != sent or not sent:
            last = sent
            await asyncio.sleep(0.2)
        assert sent < 20_000_000, "50 MB were on offer; kernel buffers take a few"
        other = await asyncio.wait_for(ask_free(edge), 5)
        assert other == 200, "others are not harmed"


async def ask_free(edge: Edge) -> int:
    async with RawClient(edge.port) as client:
        client.send(b"HEAD /api/hello HTTP/1.1\r\nHost: a\r\n\r\n")
        data = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
        return int(data.split(b" ")[1])


@pytest.mark.parametrize("path", ["/", "/anthropic", "/api/hello", "/anthropic/api/hello"])
async def test_a_probe_is_answered_without_a_key(edge: Edge, path: str) -> None:
    async with RawClient(edge.port) as client:
        client.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 200 ")


async def test_31_mb_pass_and_33_mb_are_refused(edge: Edge) -> None:
    head, tail = PLAIN[:-4], PLAIN[-4:]
    fits = head + b"x" * (31 * 1024 * 1024) + tail
    assert (await ask(edge.port, fits)).status == 200
    assert edge.upstream.requests[0].body == fits
    answer = await ask(edge.port, head + b"x" * (33 * 1024 * 1024) + tail)
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (413, "request_too_large")


async def test_count_tokens_passes_although_the_budget_is_spent(edge: Edge) -> None:
    edge.owner.decide = lambda ask: denied()
    edge.upstream.script = says(plain(b'{"input_tokens":8}'))
    target, headers, body = captured(CAPTURES / "06-count-tokens-197.json")
    async with RawClient(edge.port) as client:
        client.send(post(target, body, headers))
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b'{"input_tokens":8}')
    assert edge.upstream.requests[0].body == body
    assert edge.owner.reserves == []
    assert (await edge.requests())[0].verdict == "free"


async def test_a_provider_that_cannot_count_is_501_and_not_repeated(edge: Edge) -> None:
    edge.upstream.script = says(plain(b"{}", "404 Not Found"))
    answer = await ask(edge.port, PLAIN, "/v1/messages/count_tokens")
    assert (answer.status, answer.header("x-should-retry")) == (501, b"false")


async def get(port: int, path: str) -> tuple[int, object]:
    async with RawClient(port) as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer vk-test\r\n\r\n".encode())
        answer = await client.answer()
        return answer.status, json.loads(answer.body)


async def test_the_model_list_is_the_provider_s(edge: Edge) -> None:
    models = {"data": [{"type": "model", "id": "claude-sonnet-5-5", "display_name": "S"}], "has_more": False}
    edge.upstream.script = says(plain(json.dumps(models).encode()))
    status, found = await get(edge.port, "/v1/models?limit=1000")
    assert status == 200
    assert isinstance(found, dict)
    assert [model["id"] for model in found["data"]] == ["claude-sonnet-5-5"]


async def test_the_model_list_falls_back_when_the_provider_fails(edge: Edge) -> None:
    edge.upstream.script = says(plain(b"{}", "500 Oh"))
    status, found = await get(edge.port, "/anthropic/v1/models")
    assert (status, found) == (200, {"data": [], "has_more": False, "first_id": None, "last_id": None})


async def test_the_key_s_balance_is_told(edge: Edge) -> None:
    status, found = await get(edge.port, "/api/oauth/usage")
    assert (status, found) == (200, {"extra_usage": {"is_enabled": False}, "limits": []})


async def test_what_is_not_served_is_404_in_the_client_s_format(edge: Edge) -> None:
    answer = await ask(edge.port, PLAIN, "/v1/messages/batches")
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (404, "not_found_error")


async def test_an_unreachable_provider_is_a_retryable_refusal_and_void(edge: Edge) -> None:
    await edge.upstream.stop()
    answer = await ask(edge.port)
    assert (answer.status, answer.header("retry-after")) == (503, b"2")
    [usage] = await edge.usage()
    assert (usage.kind, usage.outcome) == ("void", "not_sent")
    await edge.upstream.start()


async def test_stopping_lets_a_stream_end_and_loses_no_record(start_edge: Start) -> None:
    gate = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:500])
        await gate.wait()
        await turn.chunk(FIRST_TURN[500:])
        await turn.write(b"0\r\n\r\n")

    starting = start_edge(drain_seconds=10.0)
    edge = await starting.__aenter__()
    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(FIRST_TURN[:300])
        stopping = asyncio.create_task(starting.__aexit__(None, None, None))
        await until(lambda: edge.app[SERVER].draining)
        gate.set()
        answer = await client.answer()
        assert (answer.body, answer.whole) == (FIRST_TURN, True)
        await asyncio.wait_for(stopping, 10)
    assert (await edge.bus.end("USAGE")).seq == 1
    assert (await edge.bus.end("REQUESTS")).seq == 1
