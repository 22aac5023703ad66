"""The machine loses power: broker's store, edge's spool, rows and all. What was acknowledged is there afterwards."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import run
from tests.chaos.power import Disk, disk, missing
from tests.chaos.stage import Stage, stage
from tests.fixtures.waiting import until

SEEN = "answers seen whole by clients before the cut"


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Disk]:
    """Where the installation keeps all that it keeps; the provider's bill is elsewhere."""
    if why := missing():
        with capsys.disabled():
            run.say(f"POWER CUT NOT TESTED HERE: {why}")
        pytest.skip(f"the power cannot be cut here: {why}")
    with disk(tmp_path / "disk.img", tmp_path / "data") as made:
        yield made


async def _cut_power(it: Stage, machine: Disk) -> None:
    """All stand still at once, as far as two cores can do that; then the disk, then nothing is left of them."""
    running = it.up.now()
    pids = [running["pid"], *(pid for members in running["pids"].values() for pid in members)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    machine.cut_power()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await it.up.process.wait()
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10, "the end of all processes")
    machine.unmount()
    machine.mount()


async def test_after_a_power_cut_under_load_nothing_acknowledged_is_lost(tmp_path: Path, machine: Disk) -> None:
    async with stage(tmp_path) as it:
        traffic = asyncio.create_task(it.traffic(6.0, 40, patience=0))
        await asyncio.sleep(4.0)
        await _cut_power(it, machine)
        whole = frozenset(it.whole)
        await traffic
    async with stage(tmp_path) as again:
        again.whole.update(whole)
        figures = await again.judged()
    run.say(f"power cut under load, {len(whole)} {SEEN}; lost: 0; {figures.report()}")
    assert len(whole) > 20


async def test_an_answer_that_its_client_has_seen_whole_is_on_the_edges_own_disk(tmp_path: Path, machine: Disk) -> None:
    """The broker cannot be reached when the answers end, so the spool alone knows of them when the power goes."""
    async with stage(tmp_path, through_broker_proxy=["edge"]) as it:
        traffic = asyncio.create_task(it.traffic(None, 20, "chunks=20;chunk_ms=100", count=20, mix={"stream": 1}))

        async def all_sent() -> bool:
            return await it.live_attempts() >= 20

        await until(all_sent, 10, "twenty answers on their way")
        it.broker.stall("up")
        await traffic
        await _cut_power(it, machine)
        whole = frozenset(it.whole)
    async with stage(tmp_path, through_broker_proxy=["edge"]) as again:
        again.whole.update(whole)
        figures = await again.judged()
    run.say(f"power cut with the broker away, {len(whole)} {SEEN}; lost: 0; {figures.report()}")
    assert len(whole) == 20
