"""What the providers' names stand for: asked off the loop, kept for a short while, and longer when nobody can say."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog
from aiohappyeyeballs import AddrInfoType

log = structlog.get_logger()

Place = tuple[str, int]
"""Host name and port."""

PATIENCE_SECONDS = 1.0
"""How long a slow resolver is waited for where addresses are known from before."""
AGAIN_SECONDS = 5.0
"""After a look-up that failed."""


class Resolve(Protocol):
    """Asks for a name. Raises OSError."""

    async def __call__(self, host: str, port: int) -> Sequence[AddrInfoType]: ...


async def system_resolver(host: str, port: int) -> Sequence[AddrInfoType]:
    """getaddrinfo, in a thread of the event loop's library."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class _Known(msgspec.Struct):
    """found_at, until: loop time. lately: also what the look-up before named."""

    infos: Sequence[AddrInfoType]
    named: frozenset[str]
    lately: frozenset[str]
    found_at: float
    until: float


class Addresses:
    """changed: called with a place after each look-up that succeeded."""

    def __init__(self, ttl_seconds: float = 30.0, stale_seconds: float = 3600.0, resolve: Resolve = system_resolver):
        self._ttl_seconds = ttl_seconds
        self._stale_seconds = stale_seconds
        self._resolve = resolve
        self._known: dict[Place, _Known] = {}
        self._asking: dict[Place, asyncio.Task[str]] = {}
        self.changed: Callable[[Place], None] = lambda place: None

    async def of(self, place: Place) -> Sequence[AddrInfoType]:
        """Raises OSError when the name cannot be resolved and was not for a long while."""
        known = self._known.get(place)
        if known and not self._due(known):
            return known.infos
        asking = self._ask(place)
        await asyncio.wait({asking}, timeout=PATIENCE_SECONDS if known else None)
        if found := self._known.get(place):
            return found.infos
        raise OSError(asking.result() if asking.done() else "the resolver does not answer")

    def refresh(self, place: Place) -> None:
        """Ask again when it is time to, without waiting."""
        known = self._known.get(place)
        if known and self._due(known):
            self._ask(place)

    def names(self, place: Place, address: str) -> bool:
        """Whether one of the last two look-ups named it: where answers take turns, one that leaves it out means little."""
        known = self._known.get(place)
        return known is None or address in known.lately

    def close(self) -> None:
        for task in self._asking.values():
            task.cancel()

    def _due(self, known: _Known) -> bool:
        return asyncio.get_running_loop().time() >= known.until

    def _ask(self, place: Place) -> "asyncio.Task[str]":
        """One question at a time for each name, however many wait for it."""
        task = self._asking.get(place)
        if task is None:
            task = self._asking[place] = asyncio.create_task(self._look_up(place))
            task.add_done_callback(lambda _: self._asking.pop(place))
        return task

    async def _look_up(self, place: Place) -> str:
        """Empty, or why it failed: whoever asked may have left, and nobody would look at an exception."""
        try:
            infos = await self._resolve(*place)
        except (OSError, UnicodeError) as error:  # a name that IDNA cannot write raises UnicodeError
            return self._failed(place, f"{error}")
        if not infos:
            return self._failed(place, "the name has no address")
        now, known = asyncio.get_running_loop().time(), self._known.get(place)
        named = frozenset(str(info[4][0]) for info in infos)
        lately = named | known.named if known else named
        until = now + self._ttl_seconds
        self._known[place] = _Known(infos=infos, named=named, lately=lately, found_at=now, until=until)
        self.changed(place)
        return ""

    def _failed(self, place: Place, reason: str) -> str:
        now, known = asyncio.get_running_loop().time(), self._known.get(place)
        if known and now < known.found_at + self._stale_seconds:
            known.until = now + AGAIN_SECONDS
            log.warning("edge.name_not_resolved", host=place[0], reason=reason, known_for_s=int(now - known.found_at))
        else:
            self._known.pop(place, None)
        return reason
