"""A whole answer at once, for what is small and not relayed."""

import asyncio

import msgspec

from services.edge.stores.upstream.connection import Head
from services.edge.stores.upstream.origin import Origin
from services.edge.stores.upstream.pool import UpstreamPool
from shared.errors import Unavailable

LARGEST = 1024 * 1024
"""A client that does not read holds it in our memory."""


class Fetched(msgspec.Struct, frozen=True):
    """A complete answer."""

    head: Head
    body: bytes


class _Whole:
    """Receives an answer (`connection.Answer`)."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Fetched | None] = asyncio.get_running_loop().create_future()
        self._head: Head | None = None
        self._body = bytearray()

    def head(self, head: Head) -> None:
        self._head = head

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > LARGEST:
            self._finish(None)

    def ended(self) -> None:
        self._finish(Fetched(self._head, bytes(self._body)) if self._head else None)

    def lost(self, reason: str) -> None:
        self._finish(None)

    def _finish(self, found: Fetched | None) -> None:
        if not self.done.done():
            self.done.set_result(found)


async def fetch(pool: UpstreamPool, origin: Origin, head: bytes, body: bytes, seconds: float) -> Fetched:
    """Raises Unavailable(host) when it does not come whole in time. A stale connection is replaced once."""
    try:
        async with asyncio.timeout(seconds):
            for fresh in (False, True):
                connection = await pool.acquire(origin, fresh)
                whole = _Whole()
                connection.send(head, body, whole)
                try:
                    found = await whole.done
                finally:
                    if not whole.done.done() or whole.done.cancelled() or whole.done.result() is None:
                        connection.abort()
                if found:
                    return found
                if connection.answered or connection.requests == 1:
                    break
    except TimeoutError as error:
        raise Unavailable(origin.host, retry_after_s=2) from error
    raise Unavailable(origin.host, retry_after_s=2)
