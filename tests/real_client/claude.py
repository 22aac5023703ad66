"""Runs Claude Code as a developer would, in the closed network that tests/real_client/run has made."""

import os
import platform
import subprocess
from pathlib import Path

from services.cli.conformance import claude as product
from services.cli.conformance.claude import Turn, environment, turn_of, work_folder

FOLDER = Path(__file__).parent
OLDEST, NEWEST = "2.1.197", "2.1.329"


def binary(version: str) -> Path:
    """The client of this version; `tests/real_client/run` installs it."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    found = FOLDER / "node_modules" / f"claude-{version}-{machine}" / "claude"
    assert found.exists(), f"Claude Code {version} is not installed: start these tests with tests/real_client/run"
    return found


def ask(version: str, home: Path, base_url: str, key: str, prompt: str, *more: str, **environ: str) -> Turn:
    """One `claude -p` run; `home` keeps the client's state, so a second run can `--continue`."""
    before = os.times().elapsed
    done = subprocess.run(
        command(version, prompt, *more),
        env=environment(home, base_url, key, **environ),
        cwd=work_folder(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return turn_of(done.returncode, done.stdout, done.stderr, os.times().elapsed - before, [])


def command(version: str, prompt: str, *more: str) -> list[str]:
    """The words of one run that speaks JSON lines."""
    return product.command(binary(version), prompt, *more)


__all__ = ["FOLDER", "NEWEST", "OLDEST", "Turn", "ask", "binary", "command", "environment", "work_folder"]
