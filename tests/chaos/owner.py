"""The owner of the ledger as a process of its own, which can be killed and frozen."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from services.budget.settings import PREFIX, Settings
from shared.bus import BusSettings
from shared.settings import environ_of
from tests.chaos import mutants
from tests.fixtures.waiting import until


class Owner:
    """One process after the other on the same settings."""

    def __init__(self, bus: BusSettings, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ready, self._log = folder / "ready.json", folder / "log"
        self._environ = os.environ | environ_of(Settings(bus=bus, ready_file=str(self._ready)), PREFIX)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it was not started"
        return self._process

    async def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = await asyncio.to_thread(
                subprocess.Popen, mutants.service("budget"), env=self._environ, stderr=log
            )
        await until(self._is_ready, 20, f"a ready owner; its log: {self._log.read_text()}")

    def _is_ready(self) -> bool:
        return self._ready.exists() and json.loads(self._ready.read_text())["pid"] == self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 10.0) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.process.wait, seconds)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def owner(bus: BusSettings, folder: Path, port: int = 0) -> AsyncIterator[Owner]:
    """Started and ready. port: of a proxy before the broker."""
    settings = msgspec.structs.replace(bus, url=f"nats://127.0.0.1:{port}") if port else bus
    started = Owner(settings, folder)
    await started.start()
    try:
        yield started
    finally:
        if started.process.poll() is None:
            await started.kill()
