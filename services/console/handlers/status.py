"""What the console knows of the other services."""

import asyncio
import importlib.metadata

from aiohttp import web

from services.console import api
from services.console.handlers.context import ANALYTICS, BALANCE_STORE, BUS, EDGES, SETTINGS, answer, directory
from shared.bus import Bus
from shared.clock import rfc3339
from shared.contracts.edge import EdgeStatus
from shared.contracts.streams import STREAMS
from shared.errors import Unavailable


async def status(request: web.Request) -> web.Response:
    app = request.app
    streams, analytics, silent = await asyncio.gather(
        _streams(app[BUS]), app[ANALYTICS].ping(), _silent_shards(request)
    )
    edges = tuple(_edge(found) for found in app[EDGES].alive())
    services = (
        api.ServiceStatus(name="bus", state="ok" if streams else "down"),
        api.ServiceStatus(name="budget", state="down" if silent else "ok", detail=silent),
        api.ServiceStatus(name="analytics", state="ok" if analytics else "down"),
        api.ServiceStatus(name="edge", state="ok" if edges else "down", detail=f"{len(edges)} with a heartbeat"),
        api.ServiceStatus(name="console", state="ok"),
        api.ServiceStatus(name="pricing", state="unknown", detail="see the ends of USAGE and PRICED"),
        api.ServiceStatus(name="audit", state="unknown", detail="see the end of AUDIT"),
    )
    return answer(
        api.Status(
            version=importlib.metadata.version("sluicegate"),
            config_rev=directory(request).config_rev,
            services=services,
            edges=edges,
            streams=streams,
            edge_url=app[SETTINGS].edge_url,
        )
    )


async def _streams(bus: Bus) -> tuple[api.StreamEnd, ...]:
    """Empty when the bus does not answer."""
    try:
        ends = await asyncio.gather(*(bus.end(stream) for stream in STREAMS))
    except Unavailable:
        return ()
    return tuple(api.StreamEnd(stream=stream, seq=end.seq) for stream, end in zip(STREAMS, ends, strict=True))


async def _silent_shards(request: web.Request) -> str:
    """Which owners do not answer, in words; empty when all do."""
    store = request.app[BALANCE_STORE]

    async def answers(shard: str) -> bool:
        try:
            await store.of_shard(shard, budget_ids=("none",))
        except Unavailable:
            return False
        return True

    shards = directory(request).shards()
    found = await asyncio.gather(*map(answers, shards))
    silent = [shard for shard, good in zip(shards, found, strict=True) if not good]
    return f"no owner answers for shard {', '.join(silent)}" if silent else ""


def _edge(found: EdgeStatus) -> api.EdgeView:
    return api.EdgeView(
        edge=found.edge,
        at=rfc3339(found.at),
        config_rev=found.config_rev,
        decision_version=found.decision_version,
        live=len(found.live),
        spool_records=found.spool_records,
        draining=found.draining,
    )
