"""Requests through the whole edge on real sockets and a real broker; provider and owner are played."""

import asyncio
import json
from pathlib import Path

import pytest

from services.edge.app import SERVER
from tests.fixtures.edge import Edge, Start, edge, start_edge
from tests.fixtures.owner import denied, granted
from tests.fixtures.upstream import CAPTURES, STREAM_HEAD, Turn, message_json, plain, says, stream, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import Answer, RawClient, chunked, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

SSE = {path.stem: path.read_bytes() for path in sorted(CAPTURES.glob("*.sse"))}
MESSAGES = [path for path in sorted(CAPTURES.glob("[01]*-[0-9]*.json")) if "/v1/messages?" in path.read_text()]
ASK = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
STREAMED = json.dumps(ASK | {"stream": True}).encode()
PLAIN = json.dumps(ASK).encode()
FIRST_TURN = SSE["02-first-turn-197"]
DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n'
)


def captured(path: Path) -> tuple[str, list[tuple[str, str]], bytes]:
    """Path, headers (without those that the test's own client sends) and body of a captured request."""
    request = json.loads(path.read_text())["request"]
    ours = {"authorization", "host", "content-length", "content-type", "anthropic-version", "x-api-key"}
    headers = [(name, value) for name, value in request["headers"] if name.lower() not in ours]
    return request["path"], headers, json.dumps(request["body"], separators=(",", ":"), ensure_ascii=False).encode()


async def ask(port: int, body: bytes = STREAMED, path: str = "/v1/messages?beta=true") -> Answer:
    async with RawClient(port) as client:
        client.send(post(path, body))
        return await client.answer()


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
async def test_a_captured_request_reaches_the_provider_byte_for_byte(edge: Edge, path: Path) -> None:
    target, headers, body = captured(path)
    async with RawClient(edge.port) as client:
        client.send(post(target, body, headers))
        assert (await client.answer()).status == 200
    sent = edge.upstream.requests[0]
    assert sent.body == body
    assert sent.line == f"POST {target.removeprefix('/anthropic')} HTTP/1.1".encode()
    passed = [(name.decode(), value.decode()) for name, value in sent.headers]
    hop = {"connection", "accept-encoding"}
    assert [pair for pair in headers if pair[0].lower() not in hop] == [pair for pair in passed if pair in headers]
    assert sent.header("x-api-key") == b"sk-provider"
    assert sent.header("accept-encoding") == b"identity"
    assert b"vk-test" not in sent.head


async def test_chunked_and_pipelined_requests_reach_the_provider_byte_for_byte(edge: Edge) -> None:
    bodies = [json.dumps(ASK | {"n": number}).encode() for number in range(4)]
    async with RawClient(edge.port) as client:
        for number, body in enumerate(bodies):
            if number % 2:
                client.send(post("/v1/messages", b"", [("Transfer-Encoding", "chunked")], length=False))
                client.send(chunked(body, 3))
            else:
                client.send(post("/v1/messages", body))
        answers = [await client.answer() for _ in bodies]
    assert [answer.status for answer in answers] == [200] * 4
    assert [request.body for request in edge.upstream.requests] == bodies
    assert edge.upstream.connections == 1, "the connection is kept alive"
    assert all(request.header("transfer-encoding") is None for request in edge.upstream.requests)


@pytest.mark.parametrize("name", SSE)
async def test_a_captured_stream_reaches_the_client_byte_for_byte(edge: Edge, name: str) -> None:
    data = SSE[name]
    edge.upstream.script = says(stream(data))
    answer = await ask(edge.port)
    assert (answer.status, answer.body, answer.whole) == (200, data, True)
    assert answer.header("content-type") == b"text/event-stream; charset=utf-8"
    assert answer.header("cache-control") == b"no-cache"
    assert answer.header("x-accel-buffering") == b"no"
    assert answer.header("request-id") == b"req_upstream"
    assert (answer.header("x-sluicegate-request-id") or b"").startswith(b"req_")


async def test_a_stream_is_the_same_for_every_split(edge: Edge) -> None:
    cuts = iter(range(1, len(FIRST_TURN), 7))

    async def script(turn: Turn) -> None:
        cut = next(cuts)
        await turn.start_stream()
        await turn.chunk(FIRST_TURN[:cut])
        await asyncio.sleep(0)
        await turn.chunk(FIRST_TURN[cut:])
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        for _ in range(1, len(FIRST_TURN), 7):
            client.send(post("/v1/messages", STREAMED))
            answer = await client.answer()
            assert (answer.body, answer.whole) == (FIRST_TURN, True)


async def test_a_stream_in_single_bytes_is_the_same(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        await turn.start_stream()
        for at in range(len(FIRST_TURN)):
            await turn.chunk(FIRST_TURN[at : at + 1])
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    assert (await ask(edge.port)).body == FIRST_TURN


async def test_a_whole_answer_is_settled_with_the_provider_s_count(edge: Edge) -> None:
    edge.upstream.script = says(plain(message_json()))
    answer = await ask(edge.port, PLAIN)
    assert (answer.status, answer.body) == (200, message_json())
    [usage] = await edge.usage()
    assert (usage.kind, usage.outcome, usage.estimated) == ("settled", "ok", False)
    assert {line.meter: line.quantity for line in usage.lines} == {"input": 10, "output": 5}
    assert usage.upstream_request_id == "req_upstream"
    [request] = await edge.requests()
    assert (request.verdict, request.status, request.attempts) == ("admitted", 200, (usage.rid,))
    assert request.request_id == usage.request_id
    assert request.bytes_out == len(message_json())


def well_formed(body: bytes) -> bool:
    """Whether a client sees an end: a whole last event that is message_stop or an error."""
    events = [event for event in body.split(b"\n\n") if event]
    last = events[-1].splitlines()
    names = [line for line in last if line.startswith(b"event:")]
    return body.endswith(b"\n\n") and names[-1] in {b"event: message_stop", b"event: error"}


async def test_a_provider_that_dies_at_any_byte_leaves_a_well_formed_end(edge: Edge) -> None:
    """Killed after each offset of a captured stream, by reset or by a silent close in turn."""
    last = FIRST_TURN.rfind(b"event: message_stop")

    async def script(turn: Turn) -> None:
        cut = json.loads(turn.request.body)["cut"]
        await turn.start_stream()
        if cut:
            await turn.chunk(FIRST_TURN[:cut])
        turn.reset() if cut % 2 else turn.writer.close()
        await turn.hung_up()

    async def kill_at(cut: int) -> None:
        async with few:
            answer = await ask(edge.port, json.dumps(ASK | {"stream": True, "cut": cut}).encode())
        assert answer.whole, f"framing is broken after {cut} bytes"
        if cut % 2 == 0:  # a reset may overtake what was sent before it
            complete = FIRST_TURN.rfind(b"\n\n", 0, cut) + 2 if b"\n\n" in FIRST_TURN[:cut] else 0
            assert answer.body.startswith(FIRST_TURN[: min(complete, last)])
        assert well_formed(answer.body), answer.body[-300:]

    few = asyncio.Semaphore(16)
    edge.upstream.script = script
    await asyncio.gather(*(kill_at(cut) for cut in range(len(FIRST_TURN) + 1)))
    usage = await edge.usage(len(FIRST_TURN) + 1)
    assert len({record.rid for record in usage}) == len(FIRST_TURN) + 1
    assert {record.outcome for record in usage} <= {"upstream_broken", "ok"}
    unreported = [record for record in usage if record.outcome == "upstream_broken" and not record.stop_reason]
    assert unreported
    assert all(record.estimated for record in unreported)


async def test_a_clean_end_without_a_last_event_is_mended(edge: Edge) -> None:
    cut = FIRST_TURN.rfind(b"event: message_delta")
    edge.upstream.script = says(stream(FIRST_TURN[:cut]))
    answer = await ask(edge.port)
    assert answer.body.startswith(FIRST_TURN[:cut])
    assert well_formed(answer.body)
    [usage] = await edge.usage()
    assert (usage.outcome, usage.estimated) == ("upstream_broken", True)


async def test_an_unanswered_request_is_a_retryable_refusal_and_costs_nothing(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        turn.reset()

    edge.upstream.script = script
    answer = await ask(edge.port)
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (503, "api_error")
    assert answer.header("retry-after") is not None
    [usage] = await edge.usage()
    assert (usage.outcome, usage.lines) == ("upstream_broken", ())


async def test_a_json_answer_that_breaks_off_becomes_a_refusal(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        await turn.write(plain(message_json())[:-20])
        turn.reset()

    edge.upstream.script = script
    answer = await ask(edge.port, PLAIN)
    assert (answer.status, answer.whole) == (503, True)


async def test_a_stale_connection_is_replaced_once_without_the_client_noticing(edge: Edge) -> None:
    await ask(edge.port, PLAIN)
    served = edge.upstream.connections

    async def script(turn: Turn) -> None:
        if edge.upstream.connections == served:
            turn.reset()  # it read the request on the old connection, and closes
        else:
            await turn.write(plain(message_json()))

    edge.upstream.script = script
    assert (await ask(edge.port, PLAIN)).status == 200
    assert len(edge.upstream.requests) == 3
    assert len(await edge.usage(2)) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_http_becomes_a_refusal(edge: Edge, answer: bytes) -> None:
    edge.upstream.script = says(answer)
    got = await ask(edge.port)
    assert (got.status, got.whole) == (503, True)
    assert (await edge.usage())[0].outcome == "upstream_broken"


async def test_bytes_after_an_answer_never_meet_the_next_request(edge: Edge) -> None:
    """A second answer that nobody asked for: its connection is given up."""
    forged = plain(message_json(content=[{"type": "text", "text": "forged"}]))
    edge.upstream.script = says(plain(message_json()) + forged)
    for _ in range(5):
        assert (await ask(edge.port, PLAIN)).body == message_json()


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "429 Too Many Requests", "529 Overloaded"])
async def test_an_error_of_the_provider_passes_unmodified_and_costs_nothing(edge: Edge, status: str) -> None:
    body = b'{"type":"error","error":{"type":"some_error","message":"as the provider words it"}}\n'
    edge.upstream.script = says(plain(body, status, b"retry-after: 7", b"x-should-retry: true"))
    answer = await ask(edge.port)
    assert (answer.status, answer.body) == (int(status[:3]), body)
    assert (answer.header("retry-after"), answer.header("x-should-retry")) == (b"7", b"true")
    assert answer.header("request-id") == b"req_upstream"
    [usage] = await edge.usage()
    assert (usage.kind, usage.outcome, usage.lines, usage.status) == ("void", "upstream_error", (), int(status[:3]))


async def test_an_error_page_passes_unmodified(edge: Edge) -> None:
    edge.upstream.script = says(plain(b"<html>502</html>", "502 Bad Gateway", kind=b"text/html"))
    answer = await ask(edge.port)
    assert (answer.status, answer.body, answer.header("content-type")) == (502, b"<html>502</html>", b"text/html")
    assert (await edge.usage())[0].lines == ()


async def test_a_large_json_answer_flows_and_its_end_waits(edge: Edge) -> None:
    large = message_json(content=[{"type": "text", "text": "x" * 1_000_000}])
    edge.upstream.script = says(plain(large))
    answer = await ask(edge.port, PLAIN)
    assert (answer.body, answer.header("content-length")) == (large, str(len(large)).encode())


async def test_a_close_delimited_stream_ends_well(edge: Edge) -> None:
    head = STREAM_HEAD.replace(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n")

    async def script(turn: Turn) -> None:
        await turn.write(head + FIRST_TURN)
        turn.writer.close()

    edge.upstream.script = script
    answer = await ask(edge.port)
    assert (answer.body, answer.whole) == (FIRST_TURN, True)


async def test_an_interim_answer_is_skipped(edge: Edge) -> None:
    edge.upstream.script = says(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + stream(FIRST_TURN)
    )
    answer = await ask(edge.port)
    assert (answer.body, answer.header("link")) == (FIRST_TURN, None)


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
