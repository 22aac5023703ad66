"""`sluicegate provision`"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import click
import nats.errors
import nats.js.errors

from services.cli.broker import reason
from services.cli.errors import Trouble
from services.cli.supervisor.plan import MAY_BE_ON_THE_BUS
from shared import logs
from shared.bus import Bus, BusSettings, open_bus, provision
from shared.bus.streams import missing
from shared.errors import Unavailable
from shared.settings import load

AGAIN_SECONDS = 1.0


@click.command("provision")
@click.option(
    "--of",
    "service",
    type=click.Choice(MAY_BE_ON_THE_BUS),
    default="analytics",
    show_default=True,
    help="Whose variables say where the broker is, such as ANALYTICS_BUS_URL.",
)
@click.option(
    "--replicas",
    default=None,
    type=click.IntRange(1, 5),
    help="Copies of each, of those that are there too; without it 1 of what is made now.",
)
@click.option("--check", is_flag=True, help="Make nothing: wait until the streams are there.")
@click.option("--wait-seconds", default=300.0, show_default=True, help="For neighbours that do not answer yet.")
def command(service: str, replicas: int | None, check: bool, wait_seconds: float) -> None:
    """Make streams and buckets, and with ANALYTICS_CLICKHOUSE_URL tables. Of what is there only the number of copies may change."""
    logs.configure("error")
    settings = load(BusSettings, f"{service.upper()}_BUS")
    deadline = time.monotonic() + wait_seconds

    async def make(bus: Bus) -> None:
        await provision(bus, replicas)

    asyncio.run(_persist(lambda: _on_bus(settings, _all_there if check else make), deadline))
    print("all streams are there" if check else "streams and buckets are made")
    if service == "analytics" and not check:
        asyncio.run(_persist(_make_tables, deadline))


async def _persist(act: Callable[[], Awaitable[None]], deadline: float) -> None:
    """Again and again until it is done. Raises Trouble with the last reason after the deadline."""
    while True:
        try:
            return await act()
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise Trouble(f"waited as long as --wait-seconds says for {error.neighbour}") from None
        await asyncio.sleep(AGAIN_SECONDS)


async def _on_bus(settings: BusSettings, act: Callable[[Bus], Awaitable[None]]) -> None:
    try:
        async with open_bus(settings, "provision") as bus:
            await act(bus)
    except Unavailable as error:
        raise Unavailable(
            error.neighbour.replace("bus", f"the broker at {settings.shown} ({reason(error)})")
        ) from error
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"the broker at {settings.shown} ({str(error) or repr(error)})") from error


async def _all_there(bus: Bus) -> None:
    if absent := await missing(bus):
        raise Unavailable(f"who makes {', '.join(absent)}")


async def _make_tables() -> None:
    """As analytics would at its start, by its settings. Imported here: whoever waits for streams does not need the driver."""
    from services.analytics.settings import Settings  # noqa: PLC0415  # see above
    from services.analytics.stores.database import open_database  # noqa: PLC0415
    from services.analytics.stores.migrations import migrate  # noqa: PLC0415

    settings = load(Settings, "ANALYTICS")
    if not settings.clickhouse_url:
        return  # embedded: analytics alone may open its folder
    async with open_database(settings) as database:
        print(f"tables are at version {await migrate(database)}")
