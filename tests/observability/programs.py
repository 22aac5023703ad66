"""Programs that operators run beside us, from the distribution's packages; `.ci/run` installs them."""

import asyncio
import os
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "nginx": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
}
STOP_SECONDS = 10


def program(name: str) -> str:
    """Its path. A missing one fails what guards main; at a desk the run says what was left out."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        missing = f"{name} is not installed (on Debian: apt-get install {PACKAGES[name]})"
        assert not os.environ.get("CI"), missing
        pytest.skip(missing)
    return found


def configured(folder: Path, name: str, text: str) -> Path:
    """A configuration in a new folder, where the program may write what it likes."""
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    return folder / name


@asynccontextmanager
async def started(folder: Path, *command: str) -> AsyncIterator[Process]:
    """Run it in the foreground until the block ends; what it prints goes to `folder/program.log`."""
    with (folder / "program.log").open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
