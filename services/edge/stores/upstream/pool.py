"""Connections kept alive per origin, newest first, so that a quiet hour leaves few open."""

import asyncio
import ssl
from urllib.parse import urlsplit

import msgspec

from services.edge.stores.upstream.connection import UpstreamConnection
from shared.errors import Unavailable


class Origin(msgspec.Struct, frozen=True):
    """Where a provider listens. prefix: the path of its base URL, put before every request path; no trailing slash."""

    scheme: str
    host: str
    port: int
    prefix: bytes

    @property
    def authority(self) -> bytes:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host.encode() if self.port == usual else f"{host}:{self.port}".encode()


def origin_of(base_url: str) -> Origin:
    """Raises ValueError when it is no http or https URL."""
    url = urlsplit(base_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(f"{base_url} is no http or https URL")
    port = url.port or (443 if url.scheme == "https" else 80)
    return Origin(scheme=url.scheme, host=url.hostname, port=port, prefix=url.path.rstrip("/").encode())


class UpstreamPool:
    """Lends connections. A lent one comes back by itself when its answer is complete.

    connect_seconds: name look-up, TCP and TLS together. idle_seconds: how long an unused connection is kept; shorter
    than what providers keep, because a request on a connection that the other side is closing must be sent twice.
    """

    def __init__(self, connect_seconds: float = 10.0, idle_seconds: float = 45.0, idle_most: int = 256) -> None:
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._idle_most = idle_most
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._origins: dict[UpstreamConnection, Origin] = {}
        # Verifies names and chains; the trust store is the system's, or SSL_CERT_FILE's.
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])

    @property
    def open(self) -> int:
        return len(self._origins)

    async def acquire(self, origin: Origin, fresh: bool = False) -> UpstreamConnection:
        """A connection that carries nothing; with `fresh`, a new one. Raises Unavailable(host)."""
        if not fresh and (kept := self._kept(origin)):
            return kept
        return await self._connect(origin)

    def _kept(self, origin: Origin) -> UpstreamConnection | None:
        idle = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while idle:
            connection = idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        tls = self._tls if origin.scheme == "https" else None
        name = origin.host if tls else None
        connection = UpstreamConnection(self)
        self._origins[connection] = origin
        try:
            async with asyncio.timeout(self._connect_seconds):
                await asyncio.get_running_loop().create_connection(
                    lambda: connection, origin.host, origin.port, ssl=tls, server_hostname=name
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._origins.pop(connection, None)
            raise Unavailable(origin.host) from error
        except asyncio.CancelledError:
            self._origins.pop(connection, None)
            connection.abort()
            raise
        return connection

    def free(self, connection: UpstreamConnection) -> None:
        origin = self._origins.get(connection)
        if origin is None:
            connection.abort()
            return
        idle = self._idle.setdefault(origin, [])
        connection.idle_since = asyncio.get_running_loop().time()
        idle.append(connection)
        while len(idle) > self._idle_most or idle[0].idle_since < connection.idle_since - self._idle_seconds:
            idle.pop(0).abort()

    def gone(self, connection: UpstreamConnection) -> None:
        origin = self._origins.pop(connection, None)
        if origin is not None and (idle := self._idle.get(origin)) and connection in idle:
            idle.remove(connection)

    async def close(self) -> None:
        for connection in list(self._origins):
            connection.abort()
        self._origins.clear()
        self._idle.clear()
