"""Several workers under one parent: EDGE_WORKERS. Each is a process as it would be alone; the parent carries no traffic.

Its health port stands for all: ready when each of them is, and /metrics has what each says, by the label `worker`.
"""

import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from services.edge.settings import Settings
from shared.exposition import exposition
from shared.service import DRAIN, METRICS, PORTS, READY, end, new_app, watch
from shared.settings import environ_of

log = structlog.get_logger()

ALONE = 0
"""What a worker has as EDGE_WORKERS under a parent: it must not take the others' folders for its own to start."""
START_SECONDS = 60.0
AGAIN_SECONDS = 0.5
"""Before a worker that ended is started again on the same folder; what it left in its spool goes out then."""
LOOK_SECONDS = 0.2
STOP_SECONDS = 15.0
"""Beyond the drain: for the spool and the bus."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_patience = aiohttp.ClientTimeout(total=2.0)


class Worker:
    """Keeps one worker running. ready: as its own /readyz said last."""

    def __init__(self, settings: Settings, number: int, port: int) -> None:
        self.name = str(number)
        folder = Path(settings.data_dir) / (self.name if number > 1 else "")
        self._ready_file = folder / "ready.json"
        own = msgspec.structs.replace(
            settings,
            workers=ALONE,
            http_host="127.0.0.1",
            http_port=0,
            ready_file=str(self._ready_file.absolute()),
            listen_port=port,
            reuse_port=True,
            data_dir=str(folder),
        )
        self._environ = os.environ | environ_of(own, "EDGE")
        self._patience_seconds = settings.drain_seconds + STOP_SECONDS
        self._process: Process | None = None
        self._stopping = False
        self.ready = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def run(self) -> None:
        """Return when it was told to stop, or raise OSError when it ends before it was ever ready."""
        began = False
        while not self._stopping:
            self._ready_file.unlink(missing_ok=True)
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.edge", env=self._environ, preexec_fn=_end_with_the_parent
            )
            code = await self._process.wait()
            began, self.ready = began or self._ready_file.exists(), False
            if self._stopping:
                return
            if not began:
                raise OSError(f"worker {self.name} ended with {code} before it was ready")
            log.error("edge.worker_ended", worker=self.name, code=code)
            await asyncio.sleep(AGAIN_SECONDS)

    async def look(self) -> None:
        self.ready = await self.get("readyz") is not None

    async def get(self, path: str) -> str | None:
        """From its health port; None where it does not say 200."""
        try:
            port = json.loads(self._ready_file.read_text())["ports"]["http"]
            async with (
                aiohttp.ClientSession(timeout=_patience) as session,
                session.get(f"http://127.0.0.1:{port}/{path}") as answer,
            ):
                return await answer.text() if answer.status == 200 else None
        except (OSError, aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            return None

    async def stop(self) -> None:
        """Let its streams end; idempotent."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._patience_seconds):
                await process.wait()
        except TimeoutError:
            log.error("edge.worker_killed", worker=self.name)
            process.kill()
            await process.wait()


def needed(settings: Settings) -> int:
    """How many: as are asked for, and as have left a spool: who is given up must first have told all that it knows.

    The first one has the folder that it has alone.
    """
    if settings.workers == ALONE:
        return 1
    left = (path.parent.name for path in Path(settings.data_dir).glob("*/edge-id"))
    return max([settings.workers, *(int(name) for name in left if name.isdigit())])


class Merged(CollectorRegistry):
    """What several processes say, told apart by a label."""

    def __init__(self, texts: list[tuple[str, str]]) -> None:
        super().__init__()
        self._families: dict[str, Metric] = {}
        for worker, text in texts:
            for family in text_string_to_metric_families(text):
                kept = self._families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type, family.unit)
                )
                for sample in family.samples:
                    kept.add_sample(sample.name, {"worker": worker} | sample.labels, sample.value)

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def build_parent(settings: Settings) -> web.Application:
    """An application as of any service; its resource are the workers."""
    app = new_app()

    async def workers(app: web.Application) -> AsyncIterator[None]:
        with _reserved(settings) as held:
            port = held.getsockname()[1]
            family = [Worker(settings, number, port) for number in range(1, needed(settings) + 1)]
            running = [asyncio.create_task(worker.run(), name=f"worker {worker.name}") for worker in family]
            looking = asyncio.create_task(_look(family), name="look")

            async def drain() -> None:
                await asyncio.gather(*(worker.stop() for worker in family))

            async def metrics() -> bytes:
                said = [(worker.name, await worker.get("metrics") or "") for worker in family]
                return await exposition(Merged(said))

            try:
                await _until_ready(family, running)
                app[PORTS]["edge"] = port
                app[READY] = lambda: all(worker.ready for worker in family)
                app[METRICS], app[DRAIN] = metrics, drain
                for task in (*running, looking):
                    watch(app, task)
                yield
            finally:
                await end(looking)
                await drain()
                await asyncio.gather(*running, return_exceptions=True)

    app.cleanup_ctx.append(workers)
    return app


def _reserved(settings: Settings) -> socket.socket:
    """Holds the port without listening on it: that another program has it is told now, and 0 is one port for all."""
    infos = socket.getaddrinfo(settings.listen_host, settings.listen_port, type=socket.SOCK_STREAM)
    held = socket.socket(infos[0][0], socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind(infos[0][4])
    except OSError:
        held.close()
        raise
    return held


async def _until_ready(family: list[Worker], running: "list[asyncio.Task[None]]") -> None:
    """Raises OSError where a worker cannot start, or not in time."""
    try:
        async with asyncio.timeout(START_SECONDS):
            while not all(worker.ready for worker in family):
                for task in running:
                    if task.done():
                        task.result()
                await asyncio.sleep(LOOK_SECONDS / 4)
    except TimeoutError:
        raise OSError(f"the workers did not get ready within {START_SECONDS:.0f} s") from None


async def _look(family: list[Worker]) -> None:
    while True:
        await asyncio.gather(*(worker.look() for worker in family))
        await asyncio.sleep(LOOK_SECONDS)


def _end_with_the_parent() -> None:
    """Runs in the new process: a parent that is killed takes its workers along, each with its drain."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
