"""The life of every service: an aiohttp application with health endpoints, started and stopped the same way."""

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog
import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from shared import logs, telemetry
from shared.errors import Overtaken, Rejected, Unavailable
from shared.exposition import exposition

log = structlog.get_logger()


class Readiness(Protocol):
    """Whether the service can take work now."""

    def __call__(self) -> bool: ...


READY: web.AppKey[Readiness] = web.AppKey("ready", Readiness)
"""Optional; without it, ready means started."""


class Drain(Protocol):
    """Ends what is under way and takes nothing new."""

    async def __call__(self) -> None: ...


DRAIN: web.AppKey[Drain] = web.AppKey("drain", Drain)
"""Optional; awaited at a stop while the health endpoints still answer, so that /readyz tells of the drain."""


class Text(Protocol):
    """What /metrics says."""

    async def __call__(self) -> bytes: ...


METRICS: web.AppKey[Text] = web.AppKey("metrics", Text)
"""Optional; without it, the metrics of this process."""

PORTS = web.AppKey("ports", dict[str, int])
"""Ports a service bound beside its HTTP port, told in the ready file."""

FATAL: web.AppKey["asyncio.Future[None]"] = web.AppKey("fatal", asyncio.Future)
"""Set its exception to end the process: another owner lives, or a background task failed for good."""

END_AGAIN_SECONDS = 0.5

NAME = web.AppKey("name", str)
"""Of the service, where a process of its own runs it: metrics carry it."""

GC_THRESHOLD = (10_000, 20, 50)
"""Most of what a request makes is gone when it ends; looking for cycles after each 700 objects cost 5 % of a request."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ServiceSettings(Protocol):
    """What every service's settings have.

    http_port: 0 takes any free one. ready_file: written with {"pid", "ports"} once the service is ready; "" for none.
    """

    @property
    def http_host(self) -> str: ...
    @property
    def http_port(self) -> int: ...
    @property
    def ready_file(self) -> str: ...
    @property
    def log_level(self) -> str: ...


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one place where an HTTP service tells its failures apart."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Rejected as error:
        return _problem(error.status, error.code, error.message)
    except Unavailable as error:
        answer = _problem(503, "unavailable", f"{error.neighbour} is unavailable, try again")
        answer.headers["Retry-After"] = str(error.retry_after_s)
        return answer
    except Exception:
        log.exception("http.failed", method=request.method, path=request.path)
        return _problem(500, "internal_error", "an error of ours; it is in the log")


def _problem(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


def new_app() -> web.Application:
    """An application with /healthz, /readyz and /metrics, and the error middleware."""
    app = web.Application(middlewares=[errors])
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/metrics", _metrics)
    app[PORTS] = {}
    return app


async def _healthz(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    good = _ready(request.app)
    return web.json_response({"ready": good}, status=200 if good else 503)


def _ready(app: web.Application) -> bool:
    ready = app.get(READY)
    return ready is None or ready()


async def _metrics(request: web.Request) -> web.Response:
    if name := request.app.get(NAME):
        telemetry.service_ready.labels(name).set(_ready(request.app))
    text = request.app.get(METRICS, exposition)
    return web.Response(body=await text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def watch(app: web.Application, task: "asyncio.Task[None]") -> None:
    """End the process when a background task that must run for ever ends; a supervisor starts it again."""

    def ended(done: "asyncio.Task[None]") -> None:
        fatal = app.get(FATAL)
        if done.cancelled() or fatal is None or fatal.done():
            return
        fatal.set_exception(done.exception() or RuntimeError(f"{done.get_name()} ended"))

    task.add_done_callback(ended)


async def end(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks until they have ended; what they raise at their end is not looked at.

    Again and again: `asyncio.wait_for` of Python 3.11, which the bus client stands on, swallows a cancellation that comes
    in the very moment of an answer, and a follower would then run on for ever.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        ended, waiting = await asyncio.wait(waiting, timeout=END_AGAIN_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()


async def side_by_side(*loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until one of them ends, then end the others; raises what it raised. Cancelled, it ends all of them.

    A TaskGroup passes a cancellation on once, and waits for ever for the loop that swallowed it (see `end`).
    """
    tasks = [asyncio.create_task(loop) for loop in loops]
    ended: set[asyncio.Task[None]] = set()
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending = asyncio.create_task(end(*tasks))
        while not ending.done():
            with suppress(asyncio.CancelledError):  # we are ending already
                await asyncio.shield(ending)
    for task in ended:
        task.result()


def run(name: str, build_app: Callable[[], web.Application], settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; exit 1 with one line when the service cannot start or go on."""
    logs.configure(settings.log_level, name)
    try:
        uvloop.run(_serve(name, build_app, settings))
    except (Unavailable, Overtaken, OSError) as error:
        log.error("service.stopped", reason=str(error) or repr(error))  # one line, no traceback: expected
        sys.exit(1)


async def _serve(name: str, build_app: Callable[[], web.Application], settings: ServiceSettings) -> None:
    app = build_app()
    app[NAME] = name
    telemetry.keep(name)
    fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    app[FATAL] = fatal
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.http_host, settings.http_port)
        await site.start()
        app[PORTS]["http"] = runner.addresses[0][1]
        gc.collect()
        gc.set_threshold(*GC_THRESHOLD)
        gc.freeze()  # what the start has made stays: no collection needs to walk over it again
        _announce(settings.ready_file, app[PORTS])
        log.info("service.started", ports=app[PORTS], pid=os.getpid())
        await _until(stop, fatal)
        if drain := app.get(DRAIN):
            await drain()
    finally:
        await runner.cleanup()
        log.info("service.ended")


async def _until(stop: asyncio.Event, fatal: "asyncio.Future[None]") -> None:
    """Return when told to stop; raise what ended a background task."""
    fatal.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if fatal.done():
        fatal.result()


def _announce(ready_file: str, ports: dict[str, int]) -> None:
    """Tell the supervisor, atomically: a reader never sees half a file."""
    if not ready_file:
        return
    path = Path(ready_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"pid": os.getpid(), "ports": ports, "at": time.time()}))
    part.replace(path)
