"""One supervised process: started, watched, started again when it dies, and stopped."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Callable
from pathlib import Path

from services.cli.errors import Trouble
from services.cli.supervisor.data import Layout, open_log
from services.cli.supervisor.program import Program

LAUNCHER = Path(__file__).with_name("launch.py")
START_SECONDS = 60.0
START_ATTEMPTS = 5
POLL_SECONDS = 0.02


def pause_before(deaths: int) -> float:
    """Seconds to wait before the next start after so many early deaths in a row: none, then 0.1, doubling up to 2."""
    return 0.0 if deaths <= 1 else min(2.0, 0.1 * 2.0 ** min(deaths - 2, 10))


class Child:
    """Keeps one program running. `changed` is called whenever its pid or ports change, `tell` with a line for people."""

    HEALTHY_SECONDS = 10.0

    def __init__(
        self, program: Program, layout: Layout, family: int, changed: Callable[[], None], tell: Callable[[str], None]
    ) -> None:
        self.program = program
        self.ports: dict[str, int] = {}
        self.pid = 0
        self._layout, self._family, self._changed, self._tell = layout, family, changed, tell
        self._process: Process | None = None
        self._stopping = self._restarting = False
        self._early_deaths = 0
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it is ready. Raises Trouble when it cannot start."""
        self._task = asyncio.create_task(self._keep_running(), name=f"child {self.program.name}")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._task}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            self._task.result()
        if not self._ready.is_set():
            raise Trouble(f"{self.program.name} did not get ready within {START_SECONDS:.0f} s; {self._last_words()}")

    async def restart(self) -> None:
        """Start it again with its present environment and wait until it is ready."""
        self._restarting = True
        self._ready.clear()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._ready.wait()
        finally:
            self._restarting = False

    async def stop(self, seconds: float) -> None:
        """SIGTERM, then SIGKILL for it and all it started after so many seconds. Idempotent."""
        self._stopping = True
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        """End it and all it started now; not started again."""
        self._stopping = True
        self._signal(signal.SIGKILL)
        self._sweep()

    async def _keep_running(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            try:
                end = await self._live_once()
            except (OSError, Trouble) as error:  # no memory, no disk, no program: like a process that died at once
                end = str(error)
            if self._stopping:
                return
            self._count(time.monotonic() - began, end)
            await asyncio.sleep(pause_before(self._early_deaths))

    async def _live_once(self) -> str:
        """From start to death; says how it ended."""
        process = await self._spawn()
        watcher = asyncio.create_task(self._watch_ready(process))
        code = await process.wait()
        watcher.cancel()
        self._sweep()
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"

    async def _spawn(self) -> Process:
        self.program.prepare()
        log = open_log(self._layout, self.program.name)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())),
                *self.program.command(),
                env=self.program.environ(),
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal is for the supervisor alone
                pass_fds=(self._family,),
            )
        finally:
            os.close(log)
        self.pid = self._process.pid
        self._changed()
        if self._stopping:  # told to stop while the process was being made
            self._signal(signal.SIGTERM)
        return self._process

    async def _watch_ready(self, process: Process) -> None:
        while (ports := self.program.ready(process.pid)) is None:  # noqa: ASYNC110  # another process makes the file
            await asyncio.sleep(POLL_SECONDS)
        self.ports = ports
        self.program.keep(ports)
        self._ready.set()
        self._changed()

    def _count(self, lived: float, end: str) -> None:
        """Early deaths in a row slow the restarts down; too many before it was ever ready end the start."""
        self._early_deaths = 1 if lived > self.HEALTHY_SECONDS else self._early_deaths + 1
        if not self.ports and self._early_deaths >= START_ATTEMPTS:
            raise Trouble(f"{self.program.name} cannot start ({end}); {self._last_words()}")
        if self.ports and not self._restarting:
            self._tell(f"{self.program.name} ended ({end}); starting it again")

    def _signal(self, number: int) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        try:
            # not Process.send_signal: it may reap the child behind the back of the watcher, and the exit code is lost
            os.kill(self._process.pid, number)
        except ProcessLookupError:
            return

    def _sweep(self) -> None:
        """End what the process started itself: workers without their parent would keep its ports."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # nothing left in the group; macOS says EPERM for zombies
            return

    def _last_words(self) -> str:
        path = self._layout.logs / f"{self.program.name}.log"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return f"its log {path} ends: {lines[-1][:400]}" if lines else f"its log {path} is empty"
