"""Runs Claude Code as a developer would, with an empty environment but for what points it at the gateway."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import msgspec

FOLDER = Path(__file__).parent
OLDEST, NEWEST = "2.1.197", "2.1.329"


class Turn(msgspec.Struct, frozen=True):
    """What one run of the client showed. lines: all it said; result: its last line, the summary."""

    exit_code: int
    result: dict[str, Any]
    seconds: float
    stderr: str
    lines: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        return str(self.result.get("result", ""))


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
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    result = lines[-1] if lines else {}
    return Turn(done.returncode, result, os.times().elapsed - before, done.stderr, lines)


def command(version: str, prompt: str, *more: str) -> list[str]:
    """The words of one run that speaks JSON lines."""
    words = [str(binary(version)), "-p", prompt, "--output-format", "stream-json", "--verbose"]
    return [*words, "--allowedTools", "Bash,Read,Write,Edit", *more]


def environment(home: Path, base_url: str, key: str, **environ: str) -> dict[str, str]:
    """All that the client sees; an empty value leaves its variable out."""
    found = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_AUTH_TOKEN": key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        **environ,
    }
    return {name: value for name, value in found.items() if value}


def work_folder(home: Path) -> Path:
    """Where it runs."""
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    return work
