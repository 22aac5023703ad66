"""A complete Sluicegate for the time of one command: on any free ports, in a directory of its own, gone afterwards."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from services.cli.api import Api
from services.cli.errors import Trouble
from services.cli.supervisor import ports
from services.cli.supervisor.child import LAUNCHER
from services.cli.supervisor.data import Layout, read_secret

ANY_PORTS = ("--edge-port", "0", "--console-port", "0", "--clickhouse-port", "0", "--nats-port", "0")
START_SECONDS = 90.0
STOP_SECONDS = 40.0


class Private(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, and where. base_url: for Claude Code."""

    data_dir: Path
    base_url: str
    api: Api


@asynccontextmanager
async def started(folder: Path, organisation: Path, environ: Mapping[str, str]) -> AsyncIterator[Private]:
    """Start `up` on `folder/data`, wait until it is ready, stop it at the end. Raises Trouble when it cannot start."""
    layout = Layout(folder / "data")
    transcript = folder / "up.log"
    given = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    with transcript.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())),  # it does not outlive this command
            *(sys.executable, "-m", "services.cli", "up", "--data-dir", str(layout.root)),
            *("--org", str(organisation), *ANY_PORTS),
            env=given | {"HOME": str(folder)} | dict(environ), cwd=folder, start_new_session=True,
            stdin=DEVNULL, stdout=out, stderr=STDOUT,
        )  # fmt: skip
    try:
        found = await _ready(process, layout, transcript)
        yield Private(
            data_dir=layout.root,
            base_url=f"http://{ports.LOOPBACK}:{found['edge']}/anthropic",
            api=Api(f"http://{ports.LOOPBACK}:{found['console']}", read_secret(layout.admin_token)),
        )
    finally:
        await _stop(process)


async def _ready(process: Process, layout: Layout, transcript: Path) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while (found := ports.read(layout.ports)) is None:
        if process.returncode is not None or loop.time() > deadline:
            raise Trouble(f"a private Sluicegate does not start: {_last_words(transcript)}")
        await asyncio.sleep(0.05)
    return found


def _last_words(transcript: Path) -> str:
    lines = transcript.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


async def _stop(process: Process) -> None:
    """It ends its children in order; what hangs is killed, and they with it."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
