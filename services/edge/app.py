"""Joins the edge's parts: bus, organisation, spool, owner, presence, upstream connections, and the server in front."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.request import getproxies_environment

from aiohttp import web

from services.edge.core.crowd import Crowd
from services.edge.core.policy import Policy
from services.edge.core.repeats import Repeats
from services.edge.handlers.dispatch import Dispatcher
from services.edge.handlers.request import Limits
from services.edge.handlers.server import Server
from services.edge.handlers.wiring import Wiring
from services.edge.settings import Settings
from services.edge.stores.allocator import give_back_large_blocks
from services.edge.stores.away import Away
from services.edge.stores.catalogue import Catalogue
from services.edge.stores.certificate import Certificate
from services.edge.stores.credentials import Credentials
from services.edge.stores.lender import Lender
from services.edge.stores.owners import Owners
from services.edge.stores.presence import Presence
from services.edge.stores.publisher import Publisher
from services.edge.stores.spool import Spool
from services.edge.stores.upstream import Addresses, Dialler, Proxies, Trust, UpstreamPool
from shared import clock, telemetry
from shared.bus import Bus, open_bus
from shared.bus.config import ConfigFollower
from shared.contracts.config import ConfigChanged
from shared.service import DRAIN, PORTS, READY, end, new_app, watch

SETTINGS = web.AppKey("settings", Settings)
BUS = web.AppKey("bus", Bus)
CONFIG = web.AppKey("config", ConfigFollower)
SPOOL = web.AppKey("spool", Spool)
PUBLISHER = web.AppKey("publisher", Publisher)
OWNER = web.AppKey("owner", Owners)
LENDER = web.AppKey("lender", Lender)
PRESENCE = web.AppKey("presence", Presence)
POOL = web.AppKey("pool", UpstreamPool)
CATALOGUE = web.AppKey("catalogue", Catalogue)
CERTIFICATE = web.AppKey("certificate", Certificate)
SERVER = web.AppKey("server", Server)

RETURN_SECONDS = 2.0
FLUSH_SECONDS = 5.0
"""How long a stopping edge waits for the broker; what is left is in the spool and goes out at the next start."""


def build_app(settings: Settings) -> web.Application:
    app = new_app()
    app[SETTINGS] = settings
    give_back_large_blocks()
    app.cleanup_ctx.append(bus)  # opened first, closed last
    app.cleanup_ctx.append(config)
    app.cleanup_ctx.append(spool)
    app.cleanup_ctx.append(publisher)
    app.cleanup_ctx.append(owner)
    app.cleanup_ctx.append(lender)
    app.cleanup_ctx.append(presence)
    app.cleanup_ctx.append(catalogue)
    app.cleanup_ctx.append(upstream)
    if settings.tls_cert_file or settings.tls_key_file:
        app.cleanup_ctx.append(certificate)
    app.cleanup_ctx.append(server)  # drained before anything that its requests need goes
    return app


async def bus(app: web.Application) -> AsyncIterator[None]:
    async with open_bus(app[SETTINGS].bus, "edge") as opened:
        app[BUS] = opened
        yield


async def config(app: web.Application) -> AsyncIterator[None]:
    def changed(change: ConfigChanged) -> None:
        if PRESENCE in app:
            app[PRESENCE].changed()  # whoever waits for this revision hears of it now

    follower = app[CONFIG] = ConfigFollower(app[BUS], changed)
    task = asyncio.create_task(follower.run(), name="config")
    watch(app, task)
    await follower.caught_up()
    yield
    await end(task)


async def spool(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    opened = app[SPOOL] = Spool(
        Path(settings.data_dir),
        segment_bytes=settings.spool_segment_bytes,
        reserve_bytes=settings.spool_reserve_bytes,
    )
    await asyncio.to_thread(opened.open)
    telemetry.edge_spool_records.set_function(lambda: len(opened.outbox))
    telemetry.edge_spool_disk_free_bytes.set_function(lambda: _disk(settings.data_dir)[1])
    telemetry.edge_spool_disk_bytes.set_function(lambda: _disk(settings.data_dir)[0])
    yield
    await opened.close()


def _disk(folder: str) -> tuple[int, int]:
    """Bytes in all, and free; a disk that cannot be asked must not cost us all other metrics."""
    try:
        total, _, free = shutil.disk_usage(folder)
    except OSError:
        return 0, 0
    return total, free


async def publisher(app: web.Application) -> AsyncIterator[None]:
    running = app[PUBLISHER] = Publisher(app[BUS], app[SPOOL], app[SETTINGS].publish_window_records)
    task = asyncio.create_task(running.run(), name="publisher")
    watch(app, task)
    yield
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await running.flush()
    except TimeoutError:
        pass  # the broker is away; see FLUSH_SECONDS
    await end(task)


async def owner(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    asked = app[OWNER] = Owners(
        app[BUS],
        app[SPOOL].identity,
        app[CONFIG].directory,
        app[SPOOL].org_of,
        queue_seconds=settings.queue_seconds,
        deadline_ms=settings.reserve_deadline_ms,
        first_tries=settings.reserve_first_tries,
    )
    await asked.open()
    yield
    await asked.close()


async def lender(app: web.Application) -> AsyncIterator[None]:
    lending = app[LENDER] = Lender(
        app[BUS],
        app[SPOOL].identity,
        app[OWNER],
        app[CONFIG].directory,
        enabled=app[SETTINGS].leases,
        current=lambda: app[PRESENCE].current,
    )
    telemetry.edge_leased_nano_usd.set_function(lambda: lending.nano_usd)
    task = asyncio.create_task(lending.run(), name="leases")
    watch(app, task)
    yield
    await lending.close(RETURN_SECONDS)
    await end(task)


async def presence(app: web.Application) -> AsyncIterator[None]:
    spool_ = app[SPOOL]
    present = app[PRESENCE] = Presence(
        app[BUS],
        spool_.identity,
        live=lambda: spool_.live,
        config_rev=lambda: app[CONFIG].directory.config_rev,
        spool_records=lambda: len(spool_.outbox),
        delivered_epoch=lambda: spool_.delivered_epoch,
        caught_up=app[CONFIG].caught_up,
        interval_seconds=app[SETTINGS].status_interval_seconds,
    )
    await present.open()
    task = asyncio.create_task(present.run(), name="presence")
    watch(app, task)
    yield
    await end(task)
    await present.close()


async def catalogue(app: web.Application) -> AsyncIterator[None]:
    known = app[CATALOGUE] = Catalogue(app[BUS])
    task = asyncio.create_task(known.run(), name="catalogue")
    watch(app, task)
    yield
    await end(task)


async def upstream(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    dialler = Dialler(
        Addresses(settings.upstream_dns_ttl_seconds, settings.upstream_dns_stale_seconds),
        Proxies(getproxies_environment()),
        Trust(settings.upstream_ca_file, settings.upstream_client_cert_file, settings.upstream_client_key_file),
        settings.upstream_connect_timeout_seconds,
    )
    pool = app[POOL] = UpstreamPool(
        dialler,
        idle_seconds=settings.upstream_keep_alive_seconds,
        idle_most=settings.upstream_max_idle_connections,
        lifetime_seconds=settings.upstream_max_connection_age_seconds,
    )
    yield
    await pool.close()


async def certificate(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    shown = app[CERTIFICATE] = Certificate(settings.tls_cert_file, settings.tls_key_file)
    task = asyncio.create_task(shown.watch(settings.tls_reload_seconds), name="certificate")
    watch(app, task)
    yield
    await end(task)


async def server(app: web.Application) -> AsyncIterator[None]:
    settings, spool_ = app[SETTINGS], app[SPOOL]
    dispatcher = Dispatcher(_wiring(app))
    limits = Limits(
        body_bytes=settings.max_body_bytes, header_bytes=settings.max_header_bytes, headers=settings.max_header_count
    )
    running = app[SERVER] = Server(
        dispatcher, settings, limits, settings.max_connections, settings.max_request_bytes_in_all
    )
    away = Away(lambda: app[BUS].connected, asyncio.get_running_loop().time)
    governed = Policy(app[CONFIG].directory)

    def ready() -> bool:
        """Whether a new stream could begin here: without the broker those that need no owner can, or that leases pay for."""
        if running.draining or spool_.failed:
            return False
        if away.seconds() <= settings.queue_seconds:  # who asks the owner now waits for longer
            return True
        return app[LENDER].can_admit or not governed.needs_owner()

    app[READY] = ready
    app[PORTS]["edge"] = await running.listen(
        settings.listen_host,
        settings.listen_port,
        settings.listen_backlog,
        settings.reuse_port,
        app[CERTIFICATE].listening if CERTIFICATE in app else None,
    )

    async def drain() -> None:
        app[PRESENCE].drain()
        await running.drain(settings.drain_seconds)
        await dispatcher.finished()

    app[DRAIN] = drain
    yield
    await (
        drain()
    )  # again, for who builds the application without the service's frame: a drained server has nothing to do


def _wiring(app: web.Application) -> Wiring:
    return Wiring(
        loop=asyncio.get_running_loop(),
        settings=app[SETTINGS],
        me=app[SPOOL].identity,
        clock=clock.now,
        directory=app[CONFIG].directory,
        policy=Policy(app[CONFIG].directory),
        spool=app[SPOOL],
        owner=app[OWNER],
        lender=app[LENDER],
        presence=app[PRESENCE],
        credentials=Credentials(),
        pool=app[POOL],
        catalogue=app[CATALOGUE],
        repeats=Repeats(),
        crowd=Crowd(app[SETTINGS].max_connections_per_key),
    )
