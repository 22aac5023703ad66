"""Has the ledger checked every hour, and says loudly what is wrong with it."""

import asyncio
import os
import sys

import msgspec
import structlog

from services.budget.core.inspection import Check
from services.budget.settings import PREFIX, Settings
from shared import telemetry
from shared.clock import Clock
from shared.settings import environ_of

log = structlog.get_logger()

MOST_SECONDS = 3_000.0  # a check that takes longer than nearly an hour is given up
_results = {result: telemetry.budget_self_checks.labels(result) for result in ("ok", "failed", "unavailable")}
_checks = msgspec.json.Decoder(list[Check])


class Auditor:
    """The check runs in another process (`services.budget.self_check`), so that it costs requests nothing."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """For ever. A check that cannot be made is said and made again later; it stops nobody."""
        if not self._settings.self_check_seconds:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(self._settings.self_check_seconds)
            await self.check()

    async def check(self) -> list[Check]:
        """Empty when it could not be made."""
        began = self._clock()
        output = await self._output()
        try:
            checks = _checks.decode(output)
        except msgspec.DecodeError:
            _results["unavailable"].inc()
            log.warning("budget.self_check_not_made")
            return []
        failed = [check for check in checks if check.state == "fail"]
        for check in failed:
            log.error("budget.self_check_failed", check=check.name, failures=check.failures, failed=check.failed)
        _results["failed" if failed else "ok"].inc()
        telemetry.budget_self_check_failures.set(len(failed))
        left_out = {check.name: check.said for check in checks if check.state == "left out"}
        log.info(
            "budget.self_checked", failed=len(failed), left_out=left_out, duration_ms=(self._clock() - began) // 1_000
        )
        return checks

    async def _output(self) -> bytes:
        """What the other process printed; empty when it failed. It is gone when we are."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.budget.self_check",
            env=os.environ | environ_of(self._settings, PREFIX),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(MOST_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            return b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return output
