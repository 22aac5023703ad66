"""The spool on a real disk, and its way to a real broker."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from services.edge.core.journal import Started
from services.edge.stores import segment_log, spool_folder
from services.edge.stores.publisher import Publisher
from services.edge.stores.segment import numbers, path_of
from services.edge.stores.spool import Spool, SpoolFailed
from shared.bus import Bus, open_bus, provision
from shared.contracts.edge import RequestCompleted, UsageRecorded
from shared.contracts.message import Decoder
from shared.contracts.streams import REQUESTS, USAGE
from tests.fixtures.attempts import SEEN, completed, sent, settled, started
from tests.fixtures.broker import Broker
from tests.fixtures.logs import records_of
from tests.fixtures.waiting import until

_usage = Decoder(UsageRecorded)
_request = Decoder(RequestCompleted)


@asynccontextmanager
async def opened(folder: Path, *, reserve_bytes: int = 0, segment_bytes: int = 1 << 20) -> AsyncIterator[Spool]:
    spool = Spool(folder, reserve_bytes=reserve_bytes, segment_bytes=segment_bytes)
    spool.open()
    try:
        yield spool
    finally:
        await spool.close()


def crash(spool: Spool) -> None:
    """What a kill leaves: the files as they are, the lock free, nothing tidied."""
    os.close(spool._lock)


def left(folder: Path) -> Spool:
    spool = Spool(folder, reserve_bytes=0)
    spool.open()
    return spool


async def waiting(spool: Spool) -> tuple[list[UsageRecorded], list[RequestCompleted]]:
    """What the outbox holds."""
    pending = list(spool.outbox)
    usages = [_usage.decode(spool.outbox.data(one)) for one in pending if one.kind == "usage"]
    return usages, [_request.decode(spool.outbox.data(one)) for one in pending if one.kind == "request"]


async def one_attempt(spool: Spool) -> str:
    """A whole life."""
    start = started()
    await spool.start(start)
    spool.sent(sent(start))
    spool.progress(start.usage.rid, SEEN)
    await spool.end(settled(start))
    spool.completed(completed(start.usage.request_id))
    return start.usage.rid


async def test_the_edge_keeps_its_id_and_counts_its_starts(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        first = spool.identity
    async with opened(tmp_path) as spool:
        assert (spool.identity.edge, spool.identity.epoch) == (first.edge, first.epoch + 1)


async def test_two_workers_never_share_a_spool(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(SpoolFailed, match="another edge worker"):
            left(tmp_path)


async def test_usage_is_numbered_without_gaps_in_its_epoch(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await asyncio.gather(*(one_attempt(spool) for _ in range(20)))
        usages, requests = await waiting(spool)
        assert [usage.spool_seq for usage in usages] == [*range(1, 21)]
        assert [request.spool_seq for request in requests] == [*range(1, 21)]
        assert {(usage.edge, usage.epoch) for usage in usages} == {(spool.identity.edge, spool.identity.epoch)}
        assert spool.live == ()


async def test_usage_is_numbered_for_each_shard_and_goes_to_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        starts = [on_shard(started(f"r{n}"), str(n % 2)) for n in range(6)]
        for start in starts:
            await spool.start(start)
            assert spool.org_of(start.usage.rid) == start.usage.principal.org
        for start in starts[:4]:
            spool.sent(sent(start))
            await spool.end(settled(start))
    async with opened(tmp_path) as spool:  # those left behind are closed where they were begun
        pending = list(spool.outbox)
        usages, _ = await waiting(spool)
        assert [one.shard for one in pending if one.kind == "usage"] == [usage.shard for usage in usages]
        numbered = [(usage.rid, usage.shard, usage.epoch, usage.spool_seq) for usage in usages]
        assert numbered == [
            *(("r0", "0", 1, 1), ("r1", "1", 1, 1), ("r2", "0", 1, 2), ("r3", "1", 1, 2)),
            *(("r4", "0", 2, 1), ("r5", "1", 2, 1)),
        ]


def on_shard(start: Started, shard: str) -> Started:
    return msgspec.structs.replace(start, usage=msgspec.structs.replace(start.usage, shard=shard))


async def test_a_crash_leaves_every_attempt_with_exactly_one_end(tmp_path: Path) -> None:
    spool = left(tmp_path)
    only_started, was_sent, progressed, denied, over = (started(rid) for rid in ("a", "b", "c", "d", "e"))
    for start in (only_started, was_sent, progressed, denied, over):
        await spool.start(start)
    for start in (was_sent, progressed, over):
        spool.sent(sent(start))
    spool.progress("c", SEEN)
    spool.drop("d")
    await spool.end(settled(over))
    assert set(spool.live) == {"a", "b", "c"}
    crash(spool)
    async with opened(tmp_path) as after:
        usages, requests = await waiting(after)
        assert {usage.rid: usage.kind for usage in usages} == {
            "a": "void",
            "b": "recovered",
            "c": "recovered",
            "e": "settled",
        }
        lines = {usage.rid: [(line.meter, line.quantity) for line in usage.lines] for usage in usages}
        assert lines["b"] == [("input", 100), ("output", 200)]
        assert lines["c"] == [("input", 12)]
        assert [usage.spool_seq for usage in usages if usage.epoch == after.identity.epoch] == [1, 2, 3]
        assert {request.request_id for request in requests} == {"req-a", "req-b", "req-c", "req-e"}
        again = (await waiting(after))[0]
        assert again == usages


async def test_recovering_twice_ends_nothing_twice(tmp_path: Path) -> None:
    spool = left(tmp_path)
    await spool.start(started("a"))
    crash(spool)
    crash(left(tmp_path))
    async with opened(tmp_path) as after:
        usages, requests = await waiting(after)
        assert [(usage.rid, usage.epoch) for usage in usages] == [("a", 2)]
        assert len(requests) == 1


async def test_after_a_reboot_a_start_counts_as_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = left(tmp_path)
    await spool.start(started("a"))
    crash(spool)
    monkeypatch.setattr(spool_folder, "boot_id", lambda: "another run of the machine")
    async with opened(tmp_path) as after:
        assert [usage.kind for usage in (await waiting(after))[0]] == ["recovered"]


async def test_a_torn_tail_is_cut_and_nothing_before_it_is_lost(tmp_path: Path) -> None:
    spool = left(tmp_path)
    await one_attempt(spool)
    await spool.start(started("torn"))
    crash(spool)
    path = path_of(tmp_path, numbers(tmp_path)[-1])
    path.write_bytes(path.read_bytes()[:-3])
    async with opened(tmp_path) as after:
        usages, _ = await waiting(after)
        assert [usage.kind for usage in usages] == ["settled"]
    async with opened(tmp_path) as after:
        assert len((await waiting(after))[0]) == 1


async def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from tests.fixtures.attempts import *\nfrom services.edge.stores.spool import Spool\n"
        "async def main():\n"
        "    spool = Spool(pathlib.Path(sys.argv[1]), reserve_bytes=0); spool.open()\n"
        "    start = started('killed'); await spool.start(start); spool.sent(sent(start))\n"
        "    print('sent', flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path), stdout=subprocess.PIPE)
    assert child.stdout is not None
    async with asyncio.timeout(20):
        assert await child.stdout.readline() == b"sent\n"
        child.send_signal(signal.SIGKILL)
        await child.wait()
    async with opened(tmp_path) as after:
        assert [(usage.rid, usage.kind) for usage in (await waiting(after))[0]] == [("killed", "recovered")]


async def test_a_segment_goes_only_when_the_broker_has_all_of_it(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=2000) as spool:
        while len(numbers(tmp_path)) < 5:
            await one_attempt(spool)
        spool.acked(1)
        await until(lambda: spool._pruner is None)
        assert numbers(tmp_path)[0] == 1
        spool.acked(len(spool.outbox))
        await until(lambda: len(numbers(tmp_path)) == 1)


async def test_a_segment_with_a_living_attempt_stays_or_is_carried_on(tmp_path: Path) -> None:
    async with opened(tmp_path, segment_bytes=2000) as spool:
        living = started("living")
        await spool.start(living)
        while len(numbers(tmp_path)) < 3:
            await one_attempt(spool)
        spool.acked(len(spool.outbox))
        await until(lambda: spool._pruner is None)
        assert numbers(tmp_path)[0] == 1
        while len(numbers(tmp_path)) < 6:
            await one_attempt(spool)
        spool.acked(len(spool.outbox))
        await until(lambda: numbers(tmp_path)[0] > 1)
        assert any(b"living" in path_of(tmp_path, number).read_bytes() for number in numbers(tmp_path))
        await spool.end(settled(living))


async def test_a_carried_attempt_is_recovered_once_with_all_that_is_known(tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve_bytes=0, segment_bytes=2000)
    spool.open()
    living = started("living")
    await spool.start(living)
    spool.sent(sent(living))
    spool.progress("living", SEEN)
    for _ in range(12):
        await one_attempt(spool)
    spool.acked(len(spool.outbox))
    await until(lambda: 1 not in numbers(tmp_path))
    crash(spool)
    async with opened(tmp_path) as after:
        found = [usage for usage in (await waiting(after))[0] if usage.rid == "living"]
        assert [(usage.kind, usage.lines) for usage in found] == [("recovered", SEEN.lines)]


async def test_a_full_disk_refuses_new_attempts_and_forgets_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        start = started()
        await spool.start(start)
        spool._reserve_bytes = 1 << 62
        spool._space_seen_at = 0
        with pytest.raises(SpoolFailed, match="full"):
            await spool.start(started())
        assert spool.failed
        await spool.end(settled(start))
        assert [usage.kind for usage in (await waiting(spool))[0]] == ["settled"]


async def test_an_end_that_cannot_be_written_still_reaches_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        start = started()
        await spool.start(start)
        real = os.write

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(SpoolFailed):
            await spool.end(settled(start))
        spool.completed(completed("r"))
        await until(lambda: len(spool.outbox) == 2)
        monkeypatch.setattr(os, "write", real)
        usages, requests = await waiting(spool)
        assert [(usage.kind, usage.spool_seq) for usage in usages] == [("settled", 1)]
        assert len(requests) == 1


async def test_a_disk_that_does_not_sync_stops_all(tmp_path: Path) -> None:
    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    spool = Spool(tmp_path, reserve_bytes=0)
    spool.open()
    spool._log._sync = broken
    for _ in range(2):
        with pytest.raises(SpoolFailed, match="Input/output"):
            await spool.start(started())
    assert spool.failed
    await spool.close()


async def test_one_sync_serves_all_that_wait(tmp_path: Path) -> None:
    syncs: list[int] = []

    def sync(fd: int) -> None:
        syncs.append(fd)
        os.fdatasync(fd)

    spool = Spool(tmp_path, reserve_bytes=0, sync=sync)
    spool.open()
    await asyncio.gather(*(spool.start(started()) for _ in range(100)))
    assert len(syncs) <= 4
    await spool.close()


async def test_few_attempts_do_not_wait_for_each_others_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_log, "PACE_SECONDS", 60.0)
    async with opened(tmp_path) as spool, asyncio.timeout(20):
        for _ in range(20):
            await asyncio.gather(*(one_attempt(spool) for _ in range(7)))


async def test_everything_reaches_the_broker_in_order_and_once(tmp_path: Path, bus: Bus) -> None:
    async with opened(tmp_path) as spool:
        publisher = Publisher(bus, spool, window_records=7)
        running = asyncio.create_task(publisher.run())
        rids = [await one_attempt(spool) for _ in range(30)]
        async with asyncio.timeout(10):
            await publisher.flush()
        running.cancel()
        assert [_usage.decode(data).rid for data in await records_of(bus, USAGE, 30)] == rids
        assert len(await records_of(bus, REQUESTS, 30)) == 30


async def test_an_edge_that_starts_anew_publishes_what_was_left_and_nothing_twice(tmp_path: Path, bus: Bus) -> None:
    spool = left(tmp_path)
    publisher = Publisher(bus, spool, window_records=3)
    for _ in range(5):
        await one_attempt(spool)
    await publisher._publish(await spool.outbox.next(3))
    spool.outbox.done(3)  # which the hint on disk does not tell
    await publisher._publish(await spool.outbox.next(3))  # whose acknowledgement is never seen
    crash(spool)
    async with opened(tmp_path) as after:
        publisher = Publisher(bus, after)
        running = asyncio.create_task(publisher.run())
        async with asyncio.timeout(10):
            await publisher.flush()
        running.cancel()
    usages, requests = await records_of(bus, USAGE, 5), await records_of(bus, REQUESTS, 5)
    assert (len(set(usages)), len(set(requests))) == (len(usages), len(requests)) == (5, 5)
    async with opened(tmp_path) as third:
        assert len(third.outbox) == 0


async def test_publishing_survives_a_killed_broker_without_loss_or_repeat(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        async with open_bus(broker.settings("p"), "test") as bus, opened(tmp_path / "spool") as spool:
            await provision(bus)
            publisher = Publisher(bus, spool, window_records=16)
            running = asyncio.create_task(publisher.run())
            rids: list[str] = []
            for round_ in range(3):
                writing = asyncio.create_task(_many(spool, 40))
                await until(lambda: len(spool.outbox) < 10)
                broker.stop()
                rids += await writing
                broker.start()
                await until(lambda: len(spool.outbox) == 0, 20, f"round {round_}")
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            found = [_usage.decode(data) for data in await records_of(bus, USAGE, len(rids))]
            assert sorted(usage.rid for usage in found) == sorted(rids)
            assert sorted(usage.spool_seq for usage in found) == [*range(1, len(rids) + 1)]
            assert len(await records_of(bus, REQUESTS, len(rids))) == len(rids)
    finally:
        broker.stop()


async def _many(spool: Spool, count: int) -> list[str]:
    return [await one_attempt(spool) for _ in range(count)]
