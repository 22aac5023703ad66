"""Clients that do not read: what they can make a worker hold is bounded, whatever kind of answer they leave unread."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.test_edge_wire_process import edge_process, prepare
from tests.fixtures.broker import Broker
from tests.fixtures.talk import PLAIN, STREAMED
from tests.fixtures.tls import Authority
from tests.fixtures.upstream import Turn, Upstream, chunk, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["upstream"]  # a fixture

CLIENTS = 200
EVENTS = chunk(b'event: other\ndata: {"x":"' + b"y" * 10_000 + b'"}\n\n') * 5
ASKED = {
    "stream": post("/v1/messages", STREAMED),
    "stream over TLS": post("/v1/messages", STREAMED),
    "json": post("/v1/messages", PLAIN),
    "sent ahead": post("/v1/messages", PLAIN) * 20,
    "refused": post("/v1/nothing", b"") * 2000,
}
MOST_KB = {"stream": 320, "stream over TLS": 512, "json": 448, "sent ahead": 448, "refused": 384}
"""Held for each client: measured 200, 360, 270, 310, 260."""


async def endless(turn: Turn) -> None:
    """40 MB, in parts that wait to be taken."""
    if b'"stream"' in turn.request.body:
        await turn.start_stream()
    else:
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(800):
        await turn.write(EVENTS)


def resident(pid: int) -> int:
    """kB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


async def settled(pid: int) -> int:
    """What it comes to when it has not grown for a second."""
    highest, still = resident(pid), 0
    while still < 5:
        await asyncio.sleep(0.2)
        now = resident(pid)
        still = still + 1 if now <= highest + 500 else 0
        highest = max(highest, now)
    return highest


@pytest.mark.parametrize("kind", ASKED)
async def test_two_hundred_clients_that_do_not_read_hold_little(tmp_path: Path, upstream: Upstream, kind: str) -> None:
    upstream.script = endless
    broker, authority, tls = Broker(tmp_path / "nats"), Authority(tmp_path / "authority"), kind.endswith("TLS")
    cert_file, key_file = map(str, authority.pair("127.0.0.1"))
    files = {"tls_cert_file": cert_file, "tls_key_file": key_file} if tls else {}
    context = authority.client() if tls else None
    broker.start()
    try:
        await prepare(broker, upstream)
        async with edge_process(broker, tmp_path, **files) as (process, ports), AsyncExitStack() as stack:
            before = resident(process.pid)
            for _ in range(CLIENTS):
                client = RawClient(ports["edge"], receive_buffer=4096, tls=context, name="127.0.0.1")
                await stack.enter_async_context(client)
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that reads
                client.send(ASKED[kind])
            if kind != "refused":
                await until(lambda: len(upstream.requests) >= CLIENTS, 60)
            held = (await settled(process.pid) - before) / CLIENTS
            assert 10 < held < MOST_KB[kind]
    finally:
        broker.stop()
