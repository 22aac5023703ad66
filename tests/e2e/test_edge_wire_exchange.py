"""Bytes through the whole edge on real sockets and a real broker, whole and broken; provider and owner are played."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.talk import ASK, FIRST_TURN, PLAIN, STREAMED, ask, captured, well_formed
from tests.fixtures.upstream import CAPTURES, STREAM_HEAD, Turn, chunk, message_json, plain, says, stream, upstream
from tests.fixtures.wire import RawClient, chunked, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

SSE = {path.stem: path.read_bytes() for path in sorted(CAPTURES.glob("*.sse"))}
MESSAGES = [path for path in sorted(CAPTURES.glob("[01]*-[0-9]*.json")) if "/v1/messages?" in path.read_text()]
DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n'
)


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
    _, stale, again = await edge.usage(3)
    assert (stale.outcome, stale.estimated, stale.lines) == ("upstream_broken", True, ())
    assert (again.outcome, again.estimated) == ("ok", False)
    assert stale.request_id == again.request_id
    assert (stale.attempt, again.attempt) == (1, 2), "upstream may have begun on the first: it has an entry of its own"


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 129 Odd\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 O\x0bK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
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


async def test_what_comes_late_behind_the_last_event_passes_too(edge: Edge) -> None:
    """The provider's framing says when an answer is over, not its events."""

    async def script(turn: Turn) -> None:
        await turn.write(STREAM_HEAD + chunk(FIRST_TURN))
        await asyncio.sleep(0.2)
        await turn.write(chunk(b": goodbye\n\n") + b"0\r\n\r\n")

    edge.upstream.script = script
    answer = await ask(edge.port)
    assert (answer.body, answer.whole) == (FIRST_TURN + b": goodbye\n\n", True)


async def test_an_interim_answer_is_skipped(edge: Edge) -> None:
    edge.upstream.script = says(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + stream(FIRST_TURN)
    )
    answer = await ask(edge.port)
    assert (answer.body, answer.header("link")) == (FIRST_TURN, None)
