"""A provider played with raw sockets: answers as scripted, and keeps every byte it was sent."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec


class Received(msgspec.Struct, frozen=True):
    """One request as it came: the head's bytes with its blank line, and the body without its framing."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.split(b"\r\n")[1:-2]
        pairs = [line.split(b":", 1) for line in lines]
        return [(name, value.strip()) for name, value in pairs]

    def header(self, name: str) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name.encode().lower()), None)


class Turn:
    """One request being answered."""

    def __init__(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.reader = reader
        self.writer = writer

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.write(chunk(data))

    async def start_stream(self) -> None:
        await self.write(STREAM_HEAD)

    async def hung_up(self) -> None:
        """Return when the other side closes."""
        with suppress(ConnectionError):
            await self.reader.read(1)

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Turn], Awaitable[None]]

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"request-id: req_upstream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(data: bytes) -> bytes:
    """A whole streamed answer."""
    return STREAM_HEAD + chunk(data) + b"0\r\n\r\n"


def plain(body: bytes, status: str = "200 OK", *headers: bytes, kind: bytes = b"application/json") -> bytes:
    lines = [b"HTTP/1.1 " + status.encode(), b"Content-Type: " + kind, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"request-id: req_upstream", *headers, b"", b""]) + body


def says(answer: bytes) -> Script:
    """A script that answers with these bytes."""

    async def script(turn: Turn) -> None:
        await turn.write(answer)

    return script


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5},
}


def message_json(**changes: object) -> bytes:
    return json.dumps(MESSAGE | changes).encode()


class Upstream:
    """`script` answers every request; set it before sending. `requests` is what came; `open` counts connections.

    host: where it listens, and by what name it is asked for; another name can be set. tls: set it before starting.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script: Script = says(plain(message_json()))
        self.requests: list[Received] = []
        self.turns: list[Turn] = []
        self.connections = 0
        self.open = 0
        self._listens_on = self.host = host
        self.port = port
        self.tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    async def start(self) -> None:
        """Raises OSError when it cannot listen there."""
        self._stopping = False
        self._server = await asyncio.start_server(self._serve, self._listens_on, self.port, limit=2**20, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted connection is gone in the next turn of the loop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                turn = Turn(request, reader, writer)
                self.turns.append(turn)
                await self.script(turn)
        except (OSError, asyncio.CancelledError):
            pass  # the other side hung up, or the run is over
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort() if self._stopping else writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    """The next request; a gateway may frame it as it likes."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        received = Received(head=head, body=b"")
        if b"chunked" in (received.header("transfer-encoding") or b"").lower():
            return Received(head=head, body=await _chunks(reader))
        length = int(received.header("content-length") or 0)
        return Received(head=head, body=await reader.readexactly(length))
    except asyncio.IncompleteReadError:
        return None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = list[bytes]()
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass  # trailers
    return b"".join(parts)
