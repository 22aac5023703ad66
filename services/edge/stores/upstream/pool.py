"""Connections kept alive per origin, newest first, so that a quiet hour leaves few open."""

import asyncio
from contextlib import ExitStack

from services.edge.stores.upstream.addresses import Place
from services.edge.stores.upstream.connection import UpstreamConnection
from services.edge.stores.upstream.dialling import Dialler
from services.edge.stores.upstream.origin import Origin


class UpstreamPool:
    """Lends connections. A lent one comes back by itself when its answer is complete.

    idle_seconds: how long an unused connection is kept; shorter than what providers keep, because a request on a
    connection that the other side is closing must be sent twice. lifetime_seconds: after it a connection is used no
    more, so that what a provider changes behind its name is followed.
    """

    def __init__(
        self,
        dialler: Dialler | None = None,
        *,
        idle_seconds: float = 45.0,
        idle_most: int = 256,
        lifetime_seconds: float = 600.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dialler = dialler or Dialler()
        self._idle_seconds = idle_seconds
        self._idle_most = idle_most
        self._lifetime_seconds = lifetime_seconds
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._origins: dict[UpstreamConnection, Origin] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._dialler.addresses.changed = self._moved

    @property
    def open(self) -> int:
        return len(self._origins)

    async def acquire(self, origin: Origin, fresh: bool = False) -> UpstreamConnection:
        """A connection that carries nothing; with `fresh`, a new one. Raises Unavailable(host)."""
        if not fresh and (kept := self._kept(origin)):
            return kept
        return await self._connect(origin)

    def _kept(self, origin: Origin) -> UpstreamConnection | None:
        idle, now = self._idle.get(origin), self._loop.time()
        while idle:
            connection = idle.pop()
            if connection.usable and not self._is_old(connection, now):
                self._dialler.addresses.refresh(connection.place)
                return connection
            connection.abort()
        return None

    def _is_old(self, connection: UpstreamConnection, now: float) -> bool:
        return connection.idle_since <= now - self._idle_seconds or connection.made_at <= now - self._lifetime_seconds

    async def _connect(self, origin: Origin) -> UpstreamConnection:
        connection = UpstreamConnection(self)
        self._origins[connection] = origin
        with ExitStack() as undo:
            undo.callback(connection.abort)
            undo.callback(self._origins.pop, connection, None)
            await self._dialler.dial(origin, connection)
            undo.pop_all()
        connection.made_at = self._loop.time()
        return connection

    def free(self, connection: UpstreamConnection) -> None:
        origin = self._origins.get(connection)
        now = connection.idle_since = self._loop.time()
        if origin is None or self._is_old(connection, now) or not self._is_named(connection):
            connection.abort()
            return
        idle = self._idle.setdefault(origin, [])
        idle.append(connection)
        if len(idle) > self._idle_most:
            idle.pop(0).abort()
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._idle_seconds, self._sweep)

    def gone(self, connection: UpstreamConnection) -> None:
        origin = self._origins.pop(connection, None)
        if origin is not None and (idle := self._idle.get(origin)) and connection in idle:
            idle.remove(connection)

    async def close(self) -> None:
        if self._sweeping:
            self._sweeping.cancel()
        self._dialler.addresses.close()
        for connection in list(self._origins):
            connection.abort()
        self._origins.clear()
        self._idle.clear()

    def _sweep(self) -> None:
        """Close what has been idle or alive for too long; again while anything is idle."""
        loop = asyncio.get_running_loop()
        now, self._sweeping = loop.time(), None
        for origin, idle in list(self._idle.items()):
            for connection in [each for each in idle if self._is_old(each, now)]:
                idle.remove(connection)
                connection.abort()
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweeping = loop.call_later(max(0.01, self._idle_seconds / 4), self._sweep)

    def _moved(self, place: Place) -> None:
        """The name was looked up: close the idle connections to addresses that it no longer stands for."""
        for idle in self._idle.values():
            for connection in [each for each in idle if each.place == place and not self._is_named(each)]:
                idle.remove(connection)
                connection.abort()

    def _is_named(self, connection: UpstreamConnection) -> bool:
        return self._dialler.addresses.names(connection.place, connection.address)
