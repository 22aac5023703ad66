"""The edge's own client and upstream protocols with nothing in between: the floor of what the edge can cost.

`python -m tests.bench.wire UPSTREAM_PORT` prints its port.
"""

import asyncio
import sys

import msgspec
import uvloop

from services.edge.core.headers import request_headers_for_upstream
from services.edge.handlers.attempt import request_head
from services.edge.handlers.request import Limits, Request
from services.edge.handlers.responder import Responder
from services.edge.handlers.server import Server
from services.edge.stores.upstream import Head, Origin, UpstreamPool, origin_of
from shared.errors import Rejected


class Timeouts(msgspec.Struct):
    header_timeout_seconds: float = 10.0
    body_idle_timeout_seconds: float = 30.0
    keep_alive_timeout_seconds: float = 75.0
    write_idle_timeout_seconds: float = 300.0


class Passing:
    """Relays one answer (`stores.upstream.Answer`)."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder

    def head(self, head: Head) -> None:
        framing = {b"transfer-encoding", b"content-length"}
        kept = [header for header in head.headers if header[0].lower() not in framing]
        self._responder.start(head.status, kept, head.length, head.reason)

    def data(self, data: bytes) -> None:
        self._responder.write(data)

    def ended(self) -> None:
        self._responder.finish()

    def lost(self, reason: str) -> None:
        self._responder.abort()


class Forward:
    """Every request goes to one provider (`client.Handler`)."""

    def __init__(self, pool: UpstreamPool, origin: Origin) -> None:
        self._pool = pool
        self._origin = origin
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, request: Request, responder: Responder) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(request, responder))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: Request, responder: Responder) -> None:
        connection = await self._pool.acquire(self._origin)
        headers = request_headers_for_upstream(request.head.headers, (b"x-api-key", b"sk-bench"))
        head = request_head(self._origin, request.head.method, request.head.path, headers, len(request.body))
        connection.send(head, request.body, Passing(responder))

    def refuse(self, error: Rejected, responder: Responder) -> None:
        responder.send(error.status, [], b"")


async def main(upstream: int) -> None:
    handler = Forward(UpstreamPool(), origin_of(f"http://127.0.0.1:{upstream}"))
    server = Server(handler, Timeouts(), Limits(), connections_most=10_000)
    port = await server.listen("127.0.0.1", 0)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
