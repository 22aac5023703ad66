"""Processes of a run: started, asked for their port, ended whatever happens."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from tests.bench.accounting import family

STOP_SECONDS = 40.0
MODULE = (sys.executable, "-m")


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """One of those compared.

    what: what exactly was called, for people. shape: of requests, see `load`. key: what clients show at its door.
    processes: name to pids, as they are now; the first is what "the gateway" means, the others work beside it.
    """

    name: str
    what: str
    port: int
    processes: Callable[[], dict[str, list[int]]]
    shape: str = "anthropic"
    key: str = "vk-of-the-bench"


def alone(name: str, process: "subprocess.Popen[str]") -> Callable[[], dict[str, list[int]]]:
    """The process, and what it has started."""
    return lambda: {name: family(process.pid)}


def allow_many_files() -> None:
    """Thousands of streams are open at a time; what is started inherits the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def process(
    *command: str,
    environ: Mapping[str, str] | None = None,
    out: Path | None = None,
    log: Path | None = None,
    cwd: Path | None = None,
) -> Iterator["subprocess.Popen[str]"]:
    """With a pipe to its standard input and one from its output, or `out`; standard error goes to the log, or nowhere."""
    with ExitStack() as files:
        errors = files.enter_context((log or Path(os.devnull)).open("a"))
        output = files.enter_context(out.open("a")) if out else subprocess.PIPE
        running = subprocess.Popen(
            command, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environ, cwd=cwd
        )
    try:
        yield running
    finally:
        _end(running)


def _end(running: "subprocess.Popen[str]") -> None:
    running.terminate()
    try:
        running.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
    for pipe in (running.stdin, running.stdout):
        if pipe:
            pipe.close()


def told(running: "subprocess.Popen[str]") -> str:
    """The next line it says. Raises RuntimeError when it ended instead."""
    assert running.stdout
    line = running.stdout.readline()
    if not line:
        raise RuntimeError(f"it ended with exit code {running.wait(STOP_SECONDS)}")
    return line.strip()


def say_to(running: "subprocess.Popen[str]", line: str) -> None:
    assert running.stdin
    running.stdin.write(f"{line}\n")


class Provider:
    """The fake provider: a process that answers in one mode at a time."""

    def __init__(self, running: "subprocess.Popen[str]") -> None:
        self._running = running
        self.port = int(told(running))
        self.processes = alone("provider", running)

    def answer(self, mode: str) -> None:
        """From the next request on: `burst`, `json`, `paced COUNT MILLISECONDS`. `end` finishes the paced ones now."""
        say_to(self._running, mode)
        assert told(self._running) == mode


@contextmanager
def provider() -> Iterator[Provider]:
    with process(*MODULE, "tests.bench.provider") as running:
        yield Provider(running)
