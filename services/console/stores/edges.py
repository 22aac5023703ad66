"""The last heartbeat of each edge."""

import msgspec

from shared.bus import Bus
from shared.clock import Clock
from shared.contracts.edge import EDGE_STATUS, EdgeStatus
from shared.contracts.message import Decoder, Micros

FORGOTTEN_AFTER: Micros = 60_000_000  # six heartbeats

_status = Decoder(EdgeStatus)


class Edges:
    """Listens from its start; an edge is known within one heartbeat."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, EdgeStatus] = {}

    async def listen(self, bus: Bus) -> None:
        await bus.subscribe(EDGE_STATUS.format(edge="*"), self._on_status)

    async def _on_status(self, data: bytes) -> None:
        status = _status.decode(data)
        self._last[status.edge] = msgspec.structs.replace(status, at=self._clock())

    def alive(self) -> list[EdgeStatus]:
        after = self._clock() - FORGOTTEN_AFTER
        self._last = {edge: status for edge, status in self._last.items() if status.at > after}
        return sorted(self._last.values(), key=lambda status: status.edge)
