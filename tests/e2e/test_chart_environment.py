"""Every service starts, gets ready and stops with the commands and variables that the chart gives it, on a real broker.

Only addresses, ports and folders are others than in a pod. ClickHouse is away, so analytics alone does not take part.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import aiohttp

from shared.bus import BusSettings
from tests.chart.render import Object, containers, of_ci, pods
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import until

SERVICES = ("simulator", "pricing", "audit", "budget", "console", "edge")


def container(part: str, name: str) -> Object:
    """part: of the owner's name."""
    (found,) = [
        each
        for where, template in pods(of_ci("trial"))
        for each in containers(template)
        if f"-{part}" in where and each["name"] == name
    ]
    return found


def variables(given: Object, service: str, settings: BusSettings, folder: Path) -> dict[str, str]:
    """Those of the container, with what differs on this machine."""
    prefix = service.upper()
    told = {each["name"]: each.get("value", "made-up") for each in given["env"]}
    here = {
        f"{prefix}_BUS_URL": settings.url,
        f"{prefix}_BUS_MONITOR_URL": settings.monitor_url,
        f"{prefix}_HTTP_PORT": str(free_port()),
        f"{prefix}_LISTEN_PORT": str(free_port()),
        f"{prefix}_DATA_DIR": str(folder / service),
        "HOME": str(folder),
    }
    mended = {name: here.get(name, value) for name, value in told.items()}
    # a prefix of its own on the broker that all tests share
    own = {f"{prefix}_BUS_PREFIX": settings.prefix} if f"{prefix}_BUS_URL" in told else {}
    return {**mended, **own, "PATH": os.environ["PATH"]}


async def start(command: list[str], environ: Mapping[str, str], out: int = DEVNULL) -> Process:
    beside = Path(sys.executable).parent
    return await asyncio.create_subprocess_exec(
        str(beside / command[0]), *command[1:], env=environ, stdout=out, stderr=STDOUT,
        cwd=Path(__file__).parents[2], start_new_session=True,
    )  # fmt: skip


async def finish(command: list[str], environ: Mapping[str, str]) -> None:
    process = await start(command, environ, PIPE)
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def ready(port: str, process: Process) -> bool:
    assert process.returncode is None, "it ended"
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False


async def test_services_run_with_what_the_chart_gives_them(bus_settings: BusSettings, tmp_path: Path) -> None:
    running: dict[str, tuple[Process, str]] = {}
    try:
        waiting, job = container("edge", "streams"), container("provision-", "provision")
        waits = asyncio.create_task(finish(waiting["args"], variables(waiting, "edge", bus_settings, tmp_path)))
        no_tables = {"ANALYTICS_CLICKHOUSE_URL": ""}
        await finish(job["args"], variables(job, "analytics", bus_settings, tmp_path) | no_tables)
        await waits
        for service in SERVICES:
            found = container(service, service)
            environ = variables(found, service, bus_settings, tmp_path)
            running[service] = (await start(found["args"], environ), environ[f"{service.upper()}_HTTP_PORT"])
        for process, port in running.values():
            await until(partial(ready, port, process), 30)
    finally:
        for process, _ in running.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        codes = {name: await asyncio.wait_for(process.wait(), 30) for name, (process, _) in running.items()}
    assert codes == dict.fromkeys(SERVICES, 0)
