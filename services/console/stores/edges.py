"""The last heartbeat of each edge."""

import msgspec
import structlog

from shared.bus import Bus
from shared.clock import Clock
from shared.contracts.edge import EDGE_STATUS, EdgeStatus
from shared.contracts.message import Decoder, Micros, UnknownVersion
from shared.contracts.streams import EDGES
from shared.errors import Unavailable

log = structlog.get_logger()

FORGOTTEN_AFTER: Micros = 60_000_000  # six heartbeats

_status = Decoder(EdgeStatus)


class Edges:
    """Listens from its start; an edge that is new is known within one heartbeat."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, EdgeStatus] = {}

    async def listen(self, bus: Bus) -> None:
        await bus.subscribe(EDGE_STATUS.format(edge="*"), self._on_status)
        await self.registered(bus)

    async def registered(self, bus: Bus) -> set[str] | None:
        """Edges that have signed on and not off, each known from here on at least by what it wrote last in EDGES.

        None when the broker cannot tell.
        """
        try:
            found = await bus.values(EDGES)
            for edge in found.keys() - self._last.keys():
                self._last[edge] = _status.decode(found[edge])
        except Unavailable:
            return None
        except (msgspec.DecodeError, UnknownVersion) as error:
            log.warning("console.edge_not_understood", reason=str(error))
            return None
        return set(found)

    async def _on_status(self, data: bytes) -> None:
        status = _status.decode(data)
        self._last[status.edge] = msgspec.structs.replace(status, at=self._clock())

    def alive(self) -> list[EdgeStatus]:
        after = self._clock() - FORGOTTEN_AFTER
        self._last = {edge: status for edge, status in self._last.items() if status.at > after}
        return sorted(self._last.values(), key=lambda status: status.edge)
