"""Where the owners are put together: one seat for each shard that this process may own."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from services.budget.handlers.owner import Owner
from services.budget.handlers.seat import Seat
from services.budget.settings import Settings
from shared import clock
from shared.service import READY, end, new_app, watch

SEATS = web.AppKey("seats", list[Seat])
OWNER = web.AppKey("owner", Owner)
"""Of the first shard, if this process took it at its start."""


def build_app(settings: Settings, now: clock.Clock = clock.now) -> web.Application:
    app = new_app()
    seats = app[SEATS] = [Seat(shard, settings, now) for shard in settings.shards.split(",")]
    app[READY] = lambda: all(seat.ready() for seat in seats)
    app.cleanup_ctx.append(running)
    return app


async def running(app: web.Application) -> AsyncIterator[None]:
    """Started once each shard has an owner, here or elsewhere. The end of a seat is the end of the process."""
    seats = app[SEATS]
    tasks = [asyncio.create_task(seat.run(), name=f"budget.shard {seat.shard}") for seat in seats]
    try:
        await _settled(seats, tasks)
        if owner := seats[0].owner:
            app[OWNER] = owner
        for task in tasks:
            watch(app, task)
        yield
        await asyncio.gather(*(seat.stop() for seat, task in zip(seats, tasks, strict=True) if not task.done()))
    finally:
        await end(*tasks)


async def _settled(seats: list[Seat], tasks: list[asyncio.Task[None]]) -> None:
    """Raises what ends a seat before."""

    async def all_settled() -> None:
        for seat in seats:
            await seat.settled.wait()

    settled = asyncio.create_task(all_settled())
    try:
        done, _ = await asyncio.wait({settled, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(settled)
