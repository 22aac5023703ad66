"""What strains an edge for long: a provider with large and long answers, and clients that behave well, slowly or badly."""

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.bench.provider import STREAM
from tests.fixtures.upstream import STREAM_HEAD, chunk, message_json, plain
from tests.fixtures.wire import RawClient, post

LARGE = b"x" * 1_000_000
JSON = plain(message_json(content=[{"type": "text", "text": "y" * 1_000_000}]))
DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
START, STOP = (
    STREAM[STREAM.index(b"\r\n\r\n") + 4 :].split(b"\r\n")[1],
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
CROWD = {"keep": 4, "fresh": 4, "whole": 2, "long": 40, "slow": 8, "leave": 4, "stop": 2, "dribble": 4}
"""How many clients of each kind there are at a time."""


def request(play: str, *, stream: bool, size: int = len(LARGE)) -> bytes:
    asked = {"model": "claude-sonnet-5-5", "max_tokens": 1000, "stream": stream}
    body = json.dumps(asked | {"messages": [{"role": "user", "content": LARGE[:size].decode()}]}).encode()
    return post("/v1/messages?beta=true", body, [("x-play", play)])


class Provider:
    """Plays what `x-play` says: burst, long, flood or whole."""

    def __init__(self) -> None:
        self._plays = {b"burst": self._burst, b"whole": self._whole, b"long": self._long, b"flood": self._flood}

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**21, backlog=1024)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(_value(head, b"content-length")))
                await self._plays[_value(head, b"x-play")](writer)
        writer.transport.abort()

    async def _burst(self, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        await writer.drain()

    async def _whole(self, writer: asyncio.StreamWriter) -> None:
        writer.write(JSON)
        await writer.drain()

    async def _long(self, writer: asyncio.StreamWriter) -> None:
        """Ten seconds of small events."""
        await self._stream(writer, 500, 100, 0.02)

    async def _flood(self, writer: asyncio.StreamWriter) -> None:
        """100 MB, as fast as they are taken."""
        await self._stream(writer, 10_000, 10_000, 0.0)

    async def _stream(self, writer: asyncio.StreamWriter, events: int, size: int, pause: float) -> None:
        writer.write(STREAM_HEAD + chunk(START))
        delta = chunk(DELTA % (b"w" * size))
        for _ in range(events):
            if writer.is_closing():
                raise ConnectionResetError
            writer.write(delta)
            await writer.drain()
            await asyncio.sleep(pause)
        if not writer.is_closing():
            writer.write(chunk(STOP) + b"0\r\n\r\n")
        await writer.drain()


def _value(head: bytes, name: bytes) -> bytes:
    return head.partition(name + b": ")[2].split(b"\r\n")[0]


class Crowd:
    """Clients that go on until they are told to stop. counts: exchanges by kind, and what went wrong."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._rng = random.Random(1)
        self._going = True
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        self._requests = {
            "burst": request("burst", stream=True),
            "whole": request("whole", stream=False),
            "long": request("long", stream=True, size=1000),
            "flood": request("flood", stream=True, size=1000),
        }

    def start(self) -> None:
        kinds: dict[str, Callable[[], Awaitable[None]]] = {kind: getattr(self, f"_{kind}") for kind in CROWD}
        for kind, number in CROWD.items():
            self._tasks |= {asyncio.create_task(self._forever(kind, kinds[kind])) for _ in range(number)}

    async def stop(self) -> None:
        """Let everyone finish what is under way."""
        self._going = False
        await asyncio.gather(*self._tasks)

    async def _forever(self, kind: str, act: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(self._rng.random() * 2)
        while self._going:
            try:
                await act()
            except (OSError, TimeoutError) as error:
                self.counts[f"{kind} failed: {error!r}"] += 1
                await asyncio.sleep(0.5)
            else:
                self.counts[kind] += 1

    async def _ask(self, client: RawClient, play: str) -> None:
        client.send(self._requests[play])
        answer = await client.answer(60)
        if answer.status != 200 or not answer.whole:
            self.counts[f"{play} answered {answer.status}, whole: {answer.whole}"] += 1

    async def _keep(self) -> None:
        """Large requests one after the other on one connection."""
        async with RawClient(self._port) as client:
            for _ in range(50):
                await self._ask(client, "burst")
                await asyncio.sleep(0.1)

    async def _fresh(self) -> None:
        async with RawClient(self._port) as client:
            await self._ask(client, "burst")
        await asyncio.sleep(0.2)

    async def _whole(self) -> None:
        """A large answer that is no stream."""
        async with RawClient(self._port) as client:
            await self._ask(client, "whole")
        await asyncio.sleep(0.3)

    async def _long(self) -> None:
        async with RawClient(self._port) as client:
            await self._ask(client, "long")

    async def _slow(self) -> None:
        """Reads a little of much, for a while, then is gone."""
        async with RawClient(self._port, receive_buffer=16_384) as client:
            client.send(self._requests["flood"])
            for _ in range(200):
                await client.reader.read(4096)
                await asyncio.sleep(0.05)
            client.reset()

    async def _leave(self) -> None:
        """Somewhere in the answer, or before it."""
        async with RawClient(self._port) as client:
            client.send(self._requests[self._rng.choice(("burst", "long", "flood", "whole"))])
            await client.writer.drain()
            if self._rng.random() < 0.7:
                await client.reader.read(1000)
            client.reset() if self._rng.random() < 0.5 else client.close()
        await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        """In the middle of a request."""
        async with RawClient(self._port) as client:
            data = self._requests["burst"]
            client.send(data[: self._rng.randrange(len(data))])
            await client.writer.drain()
            client.reset()
        await asyncio.sleep(0.3)

    async def _dribble(self) -> None:
        """A head in single bytes, until the edge has had enough of it."""
        async with RawClient(self._port) as client:
            sock: socket.socket = client.writer.get_extra_info("socket")
            assert sock is not None
            for byte in self._requests["burst"][:60]:
                client.send(bytes([byte]))
                await asyncio.sleep(0.5)
                if client.reader.at_eof() or client.writer.is_closing():
                    return
