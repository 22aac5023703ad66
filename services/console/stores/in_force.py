"""Whether a change is in force: every edge knows the revision, every owner decides by it, every decision is acknowledged."""

import asyncio
import time

from services.console import api
from services.console.stores.edges import Edges
from shared.bus import Bus
from shared.contracts.budget import ACKNOWLEDGED, Acknowledged, AcknowledgedAsked
from shared.contracts.message import Decoder, encode
from shared.directory import Directory
from shared.errors import Unavailable

LOOK_SECONDS = 0.01
OWNER_SECONDS = 0.25
_acknowledged = Decoder(Acknowledged)


class InForceStore:
    """Edges count while they are registered and were heard within a minute: after that budget has given them up too."""

    def __init__(self, bus: Bus, directory: Directory, edges: Edges) -> None:
        self._bus, self._directory, self._edges = bus, directory, edges

    async def wait(self, config_rev: int, seconds: float, began: float) -> api.InForce:
        """Return when all have it, or after so many seconds since `began` (of time.monotonic), telling who lags."""
        registered = await self._edges.registered(self._bus)
        while True:
            found = await self._look(config_rev, registered)
            waited = time.monotonic() - began
            if found.complete or waited >= seconds:
                return api.InForce(
                    config_rev=config_rev,
                    complete=found.complete,
                    waited_ms=round(waited * 1_000),
                    edges=found.edges,
                    shards=found.shards,
                    lagging=found.lagging,
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, config_rev: int, registered: set[str] | None) -> api.InForce:
        names = self._directory.shards()
        told = await asyncio.gather(*(self._ask(shard) for shard in names))
        shards = tuple(
            api.ShardInForce(
                shard=shard,
                config_rev=ack.config_rev if ack else 0,
                lagging=_behind(ack, config_rev),
                moving=ack.moving if ack else (),
            )
            for shard, ack in zip(names, told, strict=True)
        )
        waiting = {edge for ack in told if ack for edge in ack.lagging}
        edges = tuple(
            api.EdgeInForce(
                edge=status.edge,
                config_rev=status.config_rev,
                decision_version=status.decision_version,
                lagging=status.config_rev < config_rev or status.edge in waiting,
            )
            for status in self._edges.alive()
            if registered is None or status.edge in registered
        )
        lagging = tuple(edge.edge for edge in edges if edge.lagging)
        complete = not lagging and not any(shard.lagging or shard.moving for shard in shards)
        return api.InForce(
            config_rev=config_rev, complete=complete, waited_ms=0, edges=edges, shards=shards, lagging=lagging
        )

    async def _ask(self, shard: str) -> Acknowledged | None:
        """None when no owner answers."""
        ask, subject = encode(AcknowledgedAsked()), ACKNOWLEDGED.format(shard=shard)
        try:
            return _acknowledged.decode(await self._bus.request(subject, ask, timeout=OWNER_SECONDS))
        except Unavailable:
            return None


def _behind(ack: Acknowledged | None, config_rev: int) -> bool:
    return ack is None or ack.config_rev < config_rev
