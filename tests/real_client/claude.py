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
    """What one run of the client showed. result: its last line, the summary."""

    exit_code: int
    result: dict[str, Any]
    seconds: float
    stderr: str

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
    work = home / "work"
    work.mkdir(parents=True, exist_ok=True)
    environment = {
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
    command = [str(binary(version)), "-p", prompt, "--output-format", "stream-json", "--verbose"]
    command += ["--allowedTools", "Bash,Read,Write,Edit", *more]
    before = os.times().elapsed
    done = subprocess.run(
        command,
        env=environment,
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result = json.loads(lines[-1]) if lines else {}
    return Turn(done.returncode, result, os.times().elapsed - before, done.stderr)
