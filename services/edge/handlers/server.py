"""Listens for clients and knows every connection, so that it can drain them."""

import asyncio
import ssl

import structlog

from services.edge.handlers.client import ClientConnection, Handler, Timeouts
from services.edge.handlers.request import Limits, Room
from shared import telemetry

log = structlog.get_logger()

CLOSE_SECONDS = 2.0
"""How long a client's goodbye is waited for, of TLS."""


class Server:
    """connections_most: in all; one more is closed at once, before it can cost anything. bodies_most: bytes, see `Room`."""

    def __init__(
        self, handler: Handler, timeouts: Timeouts, limits: Limits, connections_most: int, bodies_most: int = 0
    ) -> None:
        self.handler = handler
        self.timeouts = timeouts
        self.limits = limits
        self.room = Room(bodies_most)
        self.draining = False
        self._connections_most = connections_most
        self._connections: set[ClientConnection] = set()
        self._listening: asyncio.Server | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(
        self,
        host: str,
        port: int,
        backlog: int = 1024,
        reuse_port: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> int:
        """Start accepting; returns the port. Raises OSError, naming the address, when it is taken.

        Over TLS a connection counts, and is limited, from the end of its handshake; that has as long as a head.
        """
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self),
            host,
            port,
            reuse_port=reuse_port,
            backlog=backlog,
            ssl=tls,
            ssl_handshake_timeout=self.timeouts.header_timeout_seconds if tls else None,
            ssl_shutdown_timeout=CLOSE_SECONDS if tls else None,
        )
        bound: int = self._listening.sockets[0].getsockname()[1]
        return bound

    @property
    def connections(self) -> int:
        return len(self._connections)

    def opened(self, connection: ClientConnection) -> bool:
        if self.draining:  # accepted by the kernel just before it stopped listening
            return False
        if len(self._connections) >= self._connections_most:
            log.warning("edge.too_many_connections", connections=len(self._connections))
            return False
        self._connections.add(connection)
        self._empty.clear()
        telemetry.edge_connections.inc()
        return True

    def closed(self, connection: ClientConnection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            telemetry.edge_connections.dec()
        if not self._connections:
            self._empty.set()

    async def drain(self, seconds: float) -> None:
        """Accept no more; let what runs end within `seconds`, then hang up on the rest."""
        self.draining = True
        if self._listening:
            self._listening.close()
        for connection in list(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            log.warning("edge.drain_cut_short", connections=len(self._connections), seconds=seconds)
            for connection in list(self._connections):
                connection.abort()
            await self._empty.wait()  # an aborted connection is lost in the next turns of the loop
