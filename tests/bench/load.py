"""A closed loop of clients in a process of its own: each sends its next request when the answer is complete.

`python -m tests.bench.load '{"port": …}'` (a `Plan`) prints one JSON object (`Seen`).
"""

import asyncio
import sys
import time
from typing import cast

import httptools
import msgspec
import uvloop

from tests.bench.requests import request, whole

GIVE_UP_SECONDS = 120.0
TAIL_BYTES = 512


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """spread: the clients start evenly over so many seconds, so that paced streams do not tick together."""

    port: int
    shape: str
    key: str
    streams: bool
    size: int
    clients: int
    seconds: float
    spread: float = 0.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """ttfb: to the first byte of the answer's body. errors: any status but 200, or an answer that is not whole."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    ttfb_p50_ms: float
    ttfb_p99_ms: float
    load_cpu_us: float
    first_error: str = ""


class Tally:
    """What all clients share."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.good = self.bad = 0
        self.times = list[float]()
        self.firsts = list[float]()
        self.first_error = ""


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, data: bytes, streams: bool, tally: Tally) -> None:
        self._data, self._streams, self._tally = data, streams, tally
        self._parser = httptools.HttpResponseParser(self)
        self._sent = self._first = 0.0
        self._tail = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._send()

    def _send(self) -> None:
        self._sent, self._first, self._tail = time.perf_counter(), 0.0, b""
        self._transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter()
        self._tail = part[-TAIL_BYTES:] if len(part) >= TAIL_BYTES else (self._tail + part)[-TAIL_BYTES:]

    def on_message_complete(self) -> None:
        now, tally = time.perf_counter(), self._tally
        status = self._parser.get_status_code()
        if status == 200 and whole(self._streams, self._tail):
            tally.good += 1
            tally.times.append(now - self._sent)
            tally.firsts.append(self._first - self._sent)
        else:
            tally.bad += 1
            tally.first_error = tally.first_error or f"{status} {self._tail.decode(errors='replace')}"
        if now < tally.until and tally.bad < 100:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent and not self._transport.is_closing():
            self._tally.bad += 1
            self._tally.first_error = self._tally.first_error or f"connection lost: {exc}"
        if not self.done.done():
            self.done.set_result(None)


def percentile(times: list[float], share: float) -> float:
    """In ms, of seconds in order; 0 where there are none."""
    return round(times[min(len(times) - 1, int(len(times) * share))] * 1000, 3) if times else 0.0


async def run(plan: Plan) -> Seen:
    data = request(plan.shape, plan.key, plan.streams, plan.size)
    loop, started, cpu = asyncio.get_running_loop(), time.perf_counter(), time.process_time_ns()
    tally = Tally(started + plan.spread + plan.seconds)

    async def client(number: int) -> None:
        await asyncio.sleep(plan.spread * number / plan.clients)
        _, made = await loop.create_connection(lambda: Client(data, plan.streams, tally), "127.0.0.1", plan.port)
        await made.done

    async with asyncio.timeout(plan.spread + plan.seconds + GIVE_UP_SECONDS):
        await asyncio.gather(*(client(number) for number in range(plan.clients)))
    return seen(tally, time.perf_counter() - started, time.process_time_ns() - cpu)


def seen(tally: Tally, seconds: float, cpu_ns: int) -> Seen:
    tally.times.sort()
    tally.firsts.sort()
    return Seen(
        requests=tally.good,
        errors=tally.bad,
        seconds=round(seconds, 3),
        p50_ms=percentile(tally.times, 0.5),
        p99_ms=percentile(tally.times, 0.99),
        ttfb_p50_ms=percentile(tally.firsts, 0.5),
        ttfb_p99_ms=percentile(tally.firsts, 0.99),
        load_cpu_us=round(cpu_ns / 1000 / max(1, tally.good), 1),
        first_error=tally.first_error,
    )


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))).decode() + "\n")
