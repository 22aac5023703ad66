"""A closed loop of clients in a process of its own: each sends its next request when the answer is complete.

`python -m tests.bench.load PORT CASE CLIENTS SECONDS KEY` prints one JSON object: requests, errors, seconds, latencies.
"""

import asyncio
import json
import sys
import time

import httptools
import uvloop


def body(case: str) -> bytes:
    stream = b"true" if case == "stream" else b"false"
    text = 75_000 if case == "stream" else 1_000
    head = b'{"model":"claude-sonnet-5-5","stream":%b,"max_tokens":1000,"messages":[{"role":"user","content":"' % stream
    return head + (b"lorem ipsum " * (text // 12 + 1))[: text - len(head) - 4] + b'"}]}'


def request(case: str, key: str) -> bytes:
    content = body(case)
    return (
        b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer %b\r\n"
        b"User-Agent: claude-cli/2.1.329 (external, sdk-cli)\r\nAccept: application/json\r\n"
        b"X-Claude-Code-Session-Id: 00000000-0000-4000-8000-000000000001\r\nanthropic-version: 2023-06-01\r\n"
        b"anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b"
    ) % (key.encode(), len(content), content)


class Client(asyncio.Protocol):
    """One connection. counts: shared by all."""

    def __init__(self, data: bytes, counts: dict[str, int], times: list[float], until: float) -> None:
        self._data, self._counts, self._times, self._until = data, counts, times, until
        self._parser = httptools.HttpResponseParser(self)
        self._sent = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._data)  # type: ignore[attr-defined]  # uvloop's TCP transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self._times.append(now - self._sent)
        self._counts["good" if self._parser.get_status_code() == 200 else "bad"] += 1
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(port: int, case: str, clients: int, seconds: float, key: str) -> dict[str, float]:
    counts, times = {"good": 0, "bad": 0}, list[float]()
    started = time.perf_counter()
    until = started + seconds
    data, loop = request(case, key), asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: Client(data, counts, times, until), "127.0.0.1", port))[1]
        for _ in range(clients)
    ]
    async with asyncio.timeout(seconds + 10):
        await asyncio.gather(*(client.done for client in made))
    times.sort()
    return {
        "requests": counts["good"],
        "errors": counts["bad"],
        "seconds": round(time.perf_counter() - started, 3),
        "p50_ms": round(times[len(times) // 2] * 1000, 3),
        "p99_ms": round(times[len(times) * 99 // 100] * 1000, 3),
    }


if __name__ == "__main__":
    port, case, clients, seconds, key = sys.argv[1:6]
    sys.stdout.write(json.dumps(uvloop.run(run(int(port), case, int(clients), float(seconds), key))))
