"""The far side of a bridge: takes what a client says to a socket file to the gateway, and listens in on the way."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import msgspec

from services.cli.conformance.gateway import Gateway
from services.cli.conformance.recordings import Headers


class Said(msgspec.Struct, kw_only=True):
    """One request of the client. body: its JSON, None where it is none. at: seconds of the loop's clock."""

    method: str
    path: str
    headers: Headers
    body: object
    at: float

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


class Ear:
    """Reads requests from the bytes of one connection."""

    def __init__(self, said: list[Said]) -> None:
        self._said = said
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def hear(self, data: bytes) -> None:
        with suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def _begin(self) -> None:
        self._path, self._headers, self._body = b"", Headers(), b""

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        try:
            body = json.loads(self._body)
        except ValueError:
            body = None
        self._said.append(
            Said(
                method=self._parser.get_method().decode(),
                path=self._path.decode("latin-1"),
                headers=self._headers,
                body=body,
                at=asyncio.get_running_loop().time(),
            )
        )


@asynccontextmanager
async def relay(path: Path, gateway: Gateway, said: list[Said]) -> AsyncIterator[None]:
    """Listen on a socket file until the client is done; what it says is added to `said` as it comes."""
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with suppress(asyncio.CancelledError):  # the run is over; asyncio would print it
            await _join(reader, writer, gateway, Ear(said))
        tasks.discard(task)

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gateway: Gateway, ear: Ear) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(gateway.host, gateway.port, ssl=gateway.tls)
    except OSError:
        writer.transport.abort()
        return
    there = asyncio.create_task(_copy(reader, far_writer, ear))
    back = asyncio.create_task(_copy(far_reader, writer, None))
    try:
        await asyncio.gather(there, back)
    except OSError:
        pass  # one side was reset: both are ended below
    finally:
        for task in (there, back):
            task.cancel()
        for each in (far_writer, writer):
            each.transport.abort()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, ear: Ear | None) -> None:
    while data := await source.read(2**16):
        if ear:
            ear.hear(data)
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


def target(url: str) -> Gateway:
    """Where a relay may lead besides the gateway: by its origin."""
    parts = urlsplit(url)
    return Gateway(f"{parts.scheme}://{parts.netloc}")
