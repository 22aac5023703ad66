"""The provider as the real client wants it: turns with tools, subagents, titles, and directives in a prompt.

It is the simulator, in this process: what the played provider was sent is handed on to it, and its answer handed back.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web

from services.cli.conformance.provider import Received, Script, Turn
from services.simulator.app import build_app
from services.simulator.settings import Settings

_HOP = (b"connection", b"transfer-encoding", b"content-length")


@asynccontextmanager
async def conversation(folder: Path) -> AsyncIterator[Script]:
    """A script that lets the simulator answer. folder: for its bill."""
    runner = web.AppRunner(build_app(Settings(data_dir=str(folder))), handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        port = int(runner.addresses[0][1])

        async def script(turn: Turn) -> None:
            await _hand_on(turn, port)

        yield script
    finally:
        await runner.cleanup()


async def _hand_on(turn: Turn, port: int) -> None:
    """One request and its answer. The connection ends with it, as the answer's own header says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    hung_up = asyncio.create_task(turn.hung_up())
    relaying = asyncio.create_task(_relay(turn, reader))
    try:
        writer.write(_closing(turn.request))
        await asyncio.wait({hung_up, relaying}, return_when=asyncio.FIRST_COMPLETED)
        if relaying.done():
            relaying.result()
    except ConnectionResetError:
        turn.reset()
    finally:
        for task in (hung_up, relaying):
            task.cancel()
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(hung_up, relaying, return_exceptions=True)
        writer.transport.abort()
        turn.writer.close()


async def _relay(turn: Turn, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(2**16):
        await turn.write(data)


def _closing(request: Received) -> bytes:
    kept = [b"%b: %b" % pair for pair in request.headers if pair[0].lower() not in _HOP]
    framed = [request.line, *kept, b"Content-Length: %d" % len(request.body), b"Connection: close", b"", b""]
    return b"\r\n".join(framed) + request.body
