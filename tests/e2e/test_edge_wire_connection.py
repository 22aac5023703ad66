"""Client connections on real sockets, in front of a handler that answers with what it read."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from services.edge.handlers.request import Limits, Request
from services.edge.handlers.responder import Responder
from services.edge.handlers.server import Server
from shared.errors import Rejected
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, chunked, post
from tests.unit.test_edge_wire_reader import REFUSED


class Timeouts(msgspec.Struct):
    header_timeout_seconds: float = 0.3
    body_idle_timeout_seconds: float = 0.3
    keep_alive_timeout_seconds: float = 0.5
    write_idle_timeout_seconds: float = 0.5


class Echo:
    """Answers with method, path and body, at once or when `gate` opens."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gone = 0
        self.slow = 0
        self.ready = 0
        self.gate: asyncio.Event | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    def serve(self, request: Request, responder: Responder) -> None:
        self.requests.append(request)
        responder.exchange = self
        if self.gate is None:
            self._answer(request, responder)
            return
        task = asyncio.create_task(self._later(self.gate, request, responder))
        self.tasks.add(task)

    async def _later(self, gate: asyncio.Event, request: Request, responder: Responder) -> None:
        await gate.wait()
        self._answer(request, responder)

    def _answer(self, request: Request, responder: Responder) -> None:
        body = f"{request.head.method} {request.head.path} ".encode() + request.body
        responder.send(200, [(b"content-type", b"text/plain")], body)

    def refuse(self, error: Rejected, responder: Responder) -> None:
        responder.send(error.status, [], error.message.encode())

    def client_gone(self) -> None:
        self.gone += 1

    def client_slow(self) -> None:
        self.slow += 1

    def client_ready(self) -> None:
        self.ready += 1


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def server(echo: Echo) -> AsyncIterator[Server]:
    running = Server(echo, Timeouts(), Limits(body_bytes=2**20, header_bytes=4096), connections_most=20)
    yield running
    await running.drain(0.1)


@pytest.fixture
async def port(server: Server) -> int:
    return await server.listen("127.0.0.1", 0)


@pytest.mark.parametrize("what", REFUSED)
async def test_a_smuggling_attempt_is_answered_400_and_the_connection_closed(port: int, echo: Echo, what: str) -> None:
    async with RawClient(port) as client:
        client.send(REFUSED[what] + post("/smuggled", b""))
        answer = await client.answer()
        assert (answer.status, answer.header("connection")) == (400, b"close")
        assert await client.ended() == b""
    assert echo.requests == []


async def test_pipelined_requests_are_answered_in_order(port: int, echo: Echo) -> None:
    echo.gate = asyncio.Event()
    async with RawClient(port) as client:
        for number in range(10):
            client.send(post(f"/{number}", b"x" * number))
        await until(lambda: echo.requests)
        assert len(echo.requests) == 1, "one request of a connection runs at a time"
        echo.gate.set()
        bodies = [(await client.answer()).body for _ in range(10)]
    assert bodies == [f"POST /{number} {'x' * number}".encode() for number in range(10)]


async def test_a_good_request_is_answered_before_the_junk_behind_it_is_refused(port: int) -> None:
    async with RawClient(port) as client:
        client.send(post("/good", b"1") + b"\x00junk\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400
        assert await client.ended() == b""


async def test_a_chunked_request_split_anywhere_arrives_whole(port: int, echo: Echo) -> None:
    data = post("/c", b"", [("Transfer-Encoding", "chunked")], length=False) + chunked(b"hello world" * 20, 7)
    async with RawClient(port) as client:
        for start in range(0, len(data), 11):
            client.send(data[start : start + 11])
            await asyncio.sleep(0)
        assert (await client.answer()).body == b"POST /c " + b"hello world" * 20


async def test_an_expectation_is_met_before_the_body_is_sent(port: int) -> None:
    async with RawClient(port) as client:
        client.send(post("/e", b"", [("Expect", "100-continue"), ("Content-Length", "5")], length=False))
        interim = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
        assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert (await client.answer()).body == b"POST /e hello"


async def test_a_body_over_the_limit_is_refused_although_the_client_writes_it_all_first(port: int) -> None:
    async with RawClient(port) as client:
        client.send(post("/big", b"x" * (2**20 + 1)))
        await client.writer.drain()
        answer = await client.answer()
        assert (answer.status, answer.whole, answer.header("connection")) == (413, True, b"close")


async def test_a_head_has_no_body_and_the_connection_goes_on(port: int) -> None:
    async with RawClient(port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
        assert b"content-length: 7" in head
        client.send(post("/next", b""))
        assert (await client.answer()).body == b"POST /next "


async def test_an_http_1_0_client_is_answered_and_closed(port: int) -> None:
    async with RawClient(port) as client:
        client.send(b"GET /old HTTP/1.0\r\n\r\n")
        answer = await client.answer()
        assert (answer.body, answer.header("transfer-encoding")) == (b"GET /old ", None)
        assert await client.ended() == b""


async def test_a_half_closed_client_gets_its_answer(port: int, echo: Echo) -> None:
    echo.gate = asyncio.Event()
    async with RawClient(port) as client:
        client.send(post("/a", b"1") + post("/b", b"2"))
        client.finish_sending()
        await until(lambda: echo.requests)
        await asyncio.sleep(0.3)  # longer than the probing that tells it from a client that is gone
        assert not echo.gone
        echo.gate.set()
        assert [(await client.answer()).body for _ in range(2)] == [b"POST /a 1", b"POST /b 2"]
        assert await client.ended() == b""


@pytest.mark.alone
async def test_a_client_that_closes_is_noticed_within_100_ms(port: int, echo: Echo) -> None:
    echo.gate = asyncio.Event()
    async with RawClient(port) as client:
        client.send(post("/a", b"1"))
        await until(lambda: echo.requests)
        at = asyncio.get_running_loop().time()
        client.close()
        await until(lambda: echo.gone)
        assert asyncio.get_running_loop().time() - at < 0.1


@pytest.mark.alone
async def test_a_client_that_resets_is_noticed_at_once(port: int, echo: Echo) -> None:
    echo.gate = asyncio.Event()
    async with RawClient(port) as client:
        client.send(post("/a", b"1"))
        await until(lambda: echo.requests)
        client.reset()
        await until(lambda: echo.gone, 0.1)


@pytest.mark.parametrize("part", [b"POST / HT", b"POST / HTTP/1.1\r\nHost: a\r\nX:"])
async def test_a_head_that_dribbles_is_given_up_with_408(port: int, part: bytes) -> None:
    async with RawClient(port) as client:
        client.send(part)
        assert (await client.answer(3)).status == 408


async def test_a_body_that_stops_is_given_up_with_408(port: int, echo: Echo) -> None:
    async with RawClient(port) as client:
        client.send(post("/b", b"", [("Content-Length", "10")], length=False) + b"12345")
        assert (await client.answer(3)).status == 408
    assert echo.requests == []


async def test_a_body_that_keeps_coming_is_waited_for(port: int) -> None:
    async with RawClient(port) as client:
        client.send(post("/b", b"", [("Content-Length", "5")], length=False))
        for byte in b"12345":
            await asyncio.sleep(0.15)
            client.send(bytes([byte]))
        assert (await client.answer()).body == b"POST /b 12345"


async def test_an_idle_connection_is_closed_without_a_word(port: int) -> None:
    async with RawClient(port) as client:
        client.send(post("/b", b""))
        await client.answer()
        assert await client.ended(3) == b""


async def test_one_connection_too_many_is_closed_and_the_others_go_on(port: int, server: Server) -> None:
    clients = [await RawClient(port).__aenter__() for _ in range(20)]
    await until(lambda: server.connections == 20)
    async with RawClient(port) as late:
        assert await late.ended(3) == b""
    clients[0].send(post("/a", b""))
    assert (await clients[0].answer()).status == 200
    for client in clients:
        client.close()


async def test_draining_closes_the_idle_and_lets_the_running_answer_end(port: int, server: Server, echo: Echo) -> None:
    echo.gate = asyncio.Event()
    async with RawClient(port) as busy, RawClient(port) as idle:
        busy.send(post("/a", b"1"))
        await until(lambda: echo.requests)
        await until(lambda: server.connections == 2)
        draining = asyncio.create_task(server.drain(10))
        assert await idle.ended(3) == b""
        echo.gate.set()
        answer = await busy.answer()
        assert (answer.body, answer.header("connection")) == (b"POST /a 1", b"close")
        await asyncio.wait_for(draining, 5)
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await RawClient(port).__aenter__()


@pytest.mark.parametrize("body", [b"", b"x" * 50_000])
async def test_a_client_that_never_reads_its_answers_is_served_no_further_and_let_go(
    port: int, server: Server, echo: Echo, body: bytes
) -> None:
    """Answers to requests that were sent ahead must not pile up in memory, nor wait for ever to be read."""
    requests = post("/v1/messages", body) * 100
    async with RawClient(port, receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that reads, as this one
        try:
            async with asyncio.timeout(10):
                while not client.writer.is_closing() and len(echo.requests) < 100_000:
                    client.send(requests)
                    await client.writer.drain()
        except ConnectionError:
            pass
        await until(lambda: server.connections == 0)
    answered = sum(len(request.body) + 200 for request in echo.requests)
    assert answered < 16 * 2**20
