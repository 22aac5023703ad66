"""The supervisor on real processes: small programs of ours in place of the services, and the real broker."""

import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.cli.errors import Trouble
from services.cli.supervisor import data
from services.cli.supervisor.children import Children
from services.cli.supervisor.program import Broker
from tests.fixtures.waiting import until

pytestmark = pytest.mark.alone

SERVER = """
import json, os, pathlib, socket, subprocess, sys, time
ready, kept, mode = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if mode == "broken":
    print("the sky is green", flush=True)
    sys.exit(3)
if mode == "stubborn":
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", kept))
listener.listen()
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) if mode == "parent" else None
part = ready.with_suffix(".part")
part.write_text(json.dumps({"pid": os.getpid(), "ports": {"http": listener.getsockname()[1]},
                            "worker": worker and worker.pid}))
part.replace(ready)
time.sleep(600)
"""


class Dummy:
    """A Program: listens on a port, tells it, and sleeps."""

    def __init__(self, name: str, folder: Path, mode: str = "plain") -> None:
        self.name, self.mode, self.port = name, mode, 0
        self.ready_file = folder / f"{name}.ready"
        self._script = folder / "server.py"
        self._script.write_text(textwrap.dedent(SERVER))

    def prepare(self) -> None:
        self.ready_file.unlink(missing_ok=True)

    def command(self) -> list[str]:
        return [sys.executable, str(self._script), str(self.ready_file), str(self.port), self.mode]

    def environ(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"]}

    def ready(self, pid: int) -> dict[str, int] | None:
        if not self.ready_file.exists():
            return None
        told = json.loads(self.ready_file.read_text())
        return dict(told["ports"]) if told["pid"] == pid else None

    def keep(self, ports: Mapping[str, int]) -> None:
        self.port = ports["http"]


class Stage:
    """Children in a data directory, with what they told."""

    def __init__(self, layout: data.Layout, family: int) -> None:
        self.layout = layout
        self.changes = 0
        self.lines: list[str] = []
        self.children = Children(layout, family, self._changed, self.lines.append)

    def _changed(self) -> None:
        self.changes += 1

    async def start(self, *programs: Dummy | Broker) -> None:
        await self.children.start(programs, lambda child: None)


@asynccontextmanager
async def stage(root: Path) -> AsyncIterator[Stage]:
    with data.opened(root) as layout:
        async with data.family(layout) as family:
            made = Stage(layout, family)
            try:
                yield made
            finally:
                made.children.kill()
                await made.children.stop([list(made.children.pids)], 5)


def alive(pid: int) -> bool:
    """Running: neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_killed_child_is_back_within_two_seconds_on_the_same_port(tmp_path: Path) -> None:
    async with stage(tmp_path / "data") as up:
        await up.start(Dummy("one", tmp_path))
        child = up.children["one"]
        pid, port = child.pid, child.ports["http"]
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        await until(lambda: child.pid != pid and child.program.ready(child.pid))
        assert time.monotonic() - began < 2
        assert child.program.ready(child.pid) == {"http": port}
        assert up.lines == ["one ended (killed by signal 9); starting it again"]


async def test_a_child_that_dies_takes_its_own_children_along(tmp_path: Path) -> None:
    async with stage(tmp_path / "data") as up:
        program = Dummy("one", tmp_path, "parent")
        await up.start(program)
        child = up.children["one"]
        pid, worker = child.pid, json.loads(program.ready_file.read_text())["worker"]
        assert alive(worker)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: child.pid != pid)
        await until(lambda: not alive(worker))


async def test_a_child_that_cannot_start_is_one_line_with_the_end_of_its_log(tmp_path: Path) -> None:
    async with stage(tmp_path / "data") as up:
        with pytest.raises(
            Trouble, match=r"one cannot start \(exit code 3\); its log .*one.log ends: the sky is green"
        ):
            await up.start(Dummy("one", tmp_path, "broken"))


async def test_a_child_that_ignores_the_request_to_stop_is_killed_after_its_time(tmp_path: Path) -> None:
    async with stage(tmp_path / "data") as up:
        await up.start(Dummy("one", tmp_path, "stubborn"), Dummy("two", tmp_path))
        pids = up.children.pids
        began = time.monotonic()
        await up.children.stop([["two"]], 5)
        assert time.monotonic() - began < 2
        assert not alive(pids["two"][0])
        await up.children.stop([["one"]], 0.2)
        assert not alive(pids["one"][0])


async def test_the_broker_comes_back_on_its_port_and_writes_before_it_acknowledges(tmp_path: Path) -> None:
    async with stage(tmp_path / "data") as up:
        await up.start(Broker(up.layout.of("nats"), 0, {}))
        child = up.children["nats"]
        pid, ports = child.pid, child.ports
        assert "sync_interval: always" in (up.layout.of("nats") / "nats.conf").read_text()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        await until(lambda: child.pid != pid and child.program.ready(child.pid))
        assert time.monotonic() - began < 2
        assert child.program.ready(child.pid) == ports


SUPERVISOR = """
import asyncio, pathlib, sys
from tests.e2e.test_up_children import Dummy, stage

async def main(folder: pathlib.Path) -> None:
    async with stage(folder / "data") as up:
        await up.start(Dummy("one", folder), Dummy("two", folder, "stubborn"))
        print(*(pid for pids in up.children.pids.values() for pid in pids), flush=True)
        await asyncio.sleep(600)

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


async def test_a_killed_supervisor_leaves_no_orphans_and_the_next_start_finds_its_place_free(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert supervisor.stdout
    pids = [int(pid) for pid in (await supervisor.stdout.readline()).split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    with pytest.raises(Trouble, match=f"already runs on .*pid {supervisor.pid}"):
        async with stage(tmp_path / "data"):
            pass
    supervisor.kill()
    await supervisor.wait()
    async with stage(tmp_path / "data"):  # waits for what is left of the family
        assert not any(alive(pid) for pid in pids)
