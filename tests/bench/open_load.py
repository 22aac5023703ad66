"""Thousands of streams held open by one process: how late their chunks come.

`python -m tests.bench.open_load '{"port": …}'` (a `Plan`) opens them and prints a line, waits for one, collects delays for
some seconds and prints `Late`, then stays until the provider has ended every stream, and prints how many were whole.
"""

import asyncio
import gc
import re
import sys
import time
from typing import cast

import httptools
import msgspec
import uvloop

from tests.bench.load import percentile
from tests.bench.requests import request, whole

OPENING_AT_ONCE = 64
OPEN_SECONDS = 180.0
SENT = re.compile(rb"t=(\d{19})")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    shape: str
    key: str
    size: int
    streams: int
    seconds: float


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """From the provider's write to our read, two processes of the bench included."""

    chunks: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class Stream(asyncio.Protocol):
    """One answer. delays: of all streams, in seconds."""

    def __init__(self, data: bytes, delays: list[float]) -> None:
        loop = asyncio.get_running_loop()
        self._data, self._delays = data, delays
        self._parser = httptools.HttpResponseParser(self)
        self._tail = b""
        self.flows: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[bool] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        now = time.monotonic_ns()
        self._tail = part[-100:]
        for sent in SENT.findall(part):
            self._delays.append((now - int(sent)) / 1e9)
            if not self.flows.done():
                self.flows.set_result(None)

    def on_message_complete(self) -> None:
        self._end(self._parser.get_status_code() == 200 and whole(True, self._tail))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(False)

    def _end(self, good: bool) -> None:
        for future, result in ((self.flows, None), (self.done, good)):
            if not future.done():
                future.set_result(result)  # type: ignore[arg-type]  # each its own


async def run(plan: Plan) -> None:
    data, delays = request(plan.shape, plan.key, True, plan.size), list[float]()
    gate, streams = asyncio.Semaphore(OPENING_AT_ONCE), list[Stream]()

    async def opened() -> None:
        async with gate:
            loop = asyncio.get_running_loop()
            _, stream = await loop.create_connection(lambda: Stream(data, delays), "127.0.0.1", plan.port)
            streams.append(stream)
            await stream.flows

    async with asyncio.timeout(OPEN_SECONDS):
        await asyncio.gather(*(opened() for _ in range(plan.streams)))
    gc.freeze()  # what is measured is not our own collector
    say(msgspec.json.encode({"open": sum(not stream.done.done() for stream in streams)}))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    delays.clear()
    await asyncio.sleep(plan.seconds)
    say(msgspec.json.encode(late(delays)))
    async with asyncio.timeout(OPEN_SECONDS):
        ended = await asyncio.gather(*(stream.done for stream in streams))
    say(msgspec.json.encode({"whole": sum(ended)}))


def late(delays: list[float]) -> Late:
    delays.sort()
    return Late(
        chunks=len(delays),
        p50_ms=percentile(delays, 0.5),
        p99_ms=percentile(delays, 0.99),
        most_ms=percentile(delays, 1),
    )


def say(line: bytes) -> None:
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))
