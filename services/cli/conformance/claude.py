"""Runs Claude Code as a developer would, with an empty environment but for what points it at the gateway.

Always in a network namespace of its own, where loopback is all there is and one port leads to the gateway: otherwise it
would reach its vendor.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from services.cli.conformance.gateway import Gateway
from services.cli.conformance.recordings import Vocabulary
from services.cli.conformance.relay import Said, relay, target
from services.cli.errors import Trouble

BRIDGE = Path(__file__).with_name("bridge.py")
PORT, SINK_PORT = 8080, 4318
RUN_SECONDS = 380.0  # of which 310 may be silence


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of the client showed. lines: all it said; result: its last line, the summary.

    posts: the messages that it sent, in order; asked: everything that it sent.
    """

    exit_code: int
    result: dict[str, Any]
    seconds: float
    stderr: str
    lines: list[dict[str, Any]] = []
    posts: list[Said] = []
    asked: list[Said] = []

    @property
    def text(self) -> str:
        return str(self.result.get("result", ""))

    @property
    def session(self) -> str:
        return str(self.result.get("session_id", ""))


def command(binary: Path, prompt: str, *more: str) -> list[str]:
    """The words of one run that speaks JSON lines."""
    words = [str(binary), "-p", prompt, "--output-format", "stream-json", "--verbose"]
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


def turn_of(exit_code: int, out: str, err: str, seconds: float, asked: list[Said]) -> Turn:
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    posts = [each for each in asked if each.method == "POST" and each.path.partition("?")[0].endswith("/v1/messages")]
    return Turn(
        exit_code=exit_code, result=lines[-1] if lines else {}, seconds=seconds, stderr=err, lines=lines,
        posts=posts, asked=asked,
    )  # fmt: skip


async def namespace() -> list[str]:
    """The words that put a program into a network of its own. Raises Trouble: not here."""
    if sys.platform != "linux" or not shutil.which("unshare"):
        raise Trouble("the real client needs Linux with `unshare`, to be cut off from every network")
    words = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    process = await asyncio.create_subprocess_exec(*words, "true", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    if await process.wait():
        raise Trouble("the real client needs permission for network namespaces (`unshare -rn true` fails)")
    return words


class Claude:
    """One version of the client, and the gateway that it is pointed at. heard: what it has said in its posts so far."""

    def __init__(self, binary: Path, gateway: Gateway, apart: list[str]) -> None:
        self.binary, self.version, self.heard = binary, "", Vocabulary()
        self._gateway, self._apart = gateway, apart

    async def introduce(self) -> None:
        """Learn its version. Raises Trouble when it does not run."""
        async with self.started([str(self.binary), "--version"], {"PATH": "/usr/bin:/bin"}, Path("/")) as (process, _):
            out, err = await process.communicate()
        self.version = out.decode().split(" ")[0].strip()
        if process.returncode or not self.version[:1].isdigit():
            raise Trouble(f"{self.binary} does not tell its version: {err.decode()[:200] or out.decode()[:200]}")

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its version, to be compared."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    @property
    def base_url(self) -> str:
        """As it is within the namespace."""
        return f"http://127.0.0.1:{PORT}{self._gateway.prefix}"

    async def ask(
        self,
        key: str,
        prompt: str,
        *more: str,
        sink: str = "",
        home: Path | None = None,
        said: list[Said] | None = None,
        **environ: str,
    ) -> Turn:
        """One `claude -p` run. sink: a URL that its port 4318 leads to. home: where it keeps its state.

        said: a list that grows with what it sends, for who wants to know before the run has ended.
        """
        with tempfile.TemporaryDirectory(prefix="conformance-home-") as folder:
            home = home or Path(folder)
            began = time.monotonic()
            words = command(self.binary, prompt, *more)
            given = environment(home, self.base_url, key, **environ)
            async with self.started(words, given, work_folder(home), sink, said=said) as (process, asked):
                async with asyncio.timeout(RUN_SECONDS):
                    out, err = await process.communicate()
            assert process.returncode is not None
            turn = turn_of(process.returncode, out.decode(), err.decode(), time.monotonic() - began, asked)
        for post in turn.posts:
            self.heard.hear(post.headers, post.body)
        return turn

    @asynccontextmanager
    async def started(
        self,
        words: list[str],
        environ: dict[str, str],
        folder: Path,
        sink: str = "",
        terminal: int | None = None,
        said: list[Said] | None = None,
    ) -> AsyncIterator[tuple[Process, list[Said]]]:
        """The program with its bridge; ended with all it started. terminal: a descriptor instead of pipes."""
        async with AsyncExitStack() as stack:
            sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
            asked = list[Said]() if said is None else said
            await stack.enter_async_context(relay(sockets / "gateway", self._gateway, asked))
            ports = [str(PORT), str(sockets / "gateway")]
            if sink:
                await stack.enter_async_context(relay(sockets / "sink", target(sink), []))
                ports += [str(SINK_PORT), str(sockets / "sink")]
            process = await asyncio.create_subprocess_exec(
                *(*self._apart, sys.executable, "-I", "-S", str(BRIDGE), *ports, "--", *words),
                env=environ, cwd=folder, start_new_session=True,
                stdin=DEVNULL if terminal is None else terminal,
                stdout=PIPE if terminal is None else terminal,
                stderr=PIPE if terminal is None else terminal,
            )  # fmt: skip
            try:
                yield process, asked
            finally:
                with suppress(ProcessLookupError, PermissionError):  # nothing is left of its group
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
