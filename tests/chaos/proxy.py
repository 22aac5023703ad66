"""A TCP proxy that misbehaves on command, before the broker or the provider."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

Way = Literal["up", "down"]
"""up: from the client to the server; down: back."""

_CHUNK = 64 * 1024


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.torn = False

    def cut(self) -> None:
        """Both ends see a reset: nothing that is still in a buffer arrives."""
        for end in self._ends:
            end.transport.abort()


class Proxy:
    """Passes bytes on until told otherwise. Faults hold for all connections, present and new, until `heal`.

    delay_seconds: before each piece, in each direction.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_seconds = 0.0
        self._listening: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._open: dict[Way, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._lost: set[Way] = set()
        self._left: dict[Way, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for event in self._open.values():
            event.set()

    async def listen(self) -> None:
        """On the same port as before, when there was one."""
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self.away()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        for link in tuple(self._links):
            link.cut()

    async def away(self) -> None:
        """Reset every connection and refuse new ones, as where no process listens."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.cut()

    async def back(self) -> None:
        """Listen again, and be healthy."""
        if self._listening is None:
            await self.listen()
        self.heal()

    def stall(self, *ways: Way) -> None:
        """Nothing passes, nothing is lost and nobody is told: it arrives after `heal`."""
        for way in ways:
            self._open[way].clear()

    def half_open(self, way: Way) -> None:
        """Bytes of this direction vanish; the other direction works."""
        self._lost.add(way)

    def lose_after(self, count: int, way: Way) -> None:
        """So many more bytes pass in this direction, over all connections; what comes after them vanishes."""
        self._left[way] = count

    def heal(self) -> None:
        """End every fault. A connection that has lost bytes cannot go on: it is reset."""
        self.delay_seconds = 0.0
        self._lost.clear()
        self._left.clear()
        for link in tuple(self._links):
            if link.torn:
                link.cut()
        for event in self._open.values():
            event.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        for end in (writer, server_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(writer, server_writer)
        self._links.add(link)
        pumps = (self._pump("up", link, reader, server_writer), self._pump("down", link, server_reader, writer))
        tasks = [asyncio.create_task(pump) for pump in pumps]
        self._tasks.update(tasks)
        try:
            await asyncio.wait(tasks)
        finally:
            self._tasks.difference_update(tasks)
            self._links.discard(link)
            link.cut()

    async def _pump(self, way: Way, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._open[way].wait()
                passing = self._passing(way, data)
                link.torn |= len(passing) < len(data)
                if passing:
                    writer.write(passing)
                    await writer.drain()
            await self._open[way].wait()  # the end of a stream waits its turn too
            writer.close()
        except OSError:  # a reset is passed on
            link.cut()

    def _passing(self, way: Way, data: bytes) -> bytes:
        if way in self._lost:
            return b""
        if (left := self._left.get(way)) is None:
            return data
        self._left[way] = max(0, left - len(data))
        return data[:left]


@asynccontextmanager
async def proxy(target_port: int = 0) -> AsyncIterator[Proxy]:
    """Listening; the target may be told later."""
    made = Proxy(target_port)
    await made.listen()
    try:
        yield made
    finally:
        await made.close()
