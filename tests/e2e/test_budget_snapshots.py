"""The owner starts from a snapshot, and from the whole ledger where there is none to trust."""

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
import structlog.testing

from services.budget.app import OWNER
from services.budget.core import snapshot
from services.budget.core.snapshot import Manifest
from services.budget.core.state import State
from services.budget.handlers.keeper import recover
from services.budget.snapshots import Shelf, Snapshot
from services.budget.stores import Ledger
from shared.bus import Bus
from shared.contracts.budget import Granted
from shared.contracts.message import Decoder, encode
from shared.contracts.streams import SNAPSHOT, SNAPSHOTS
from tests.e2e.test_budget_kill import Owner, owner
from tests.fixtures.budget import Asker, ask, owner_app, publish_priced, usage
from tests.fixtures.governed import governed, settings_of
from tests.fixtures.waiting import until

__all__ = ["governed", "owner"]  # fixtures

_manifest = Decoder(Manifest)


async def replayed(bus: Bus) -> State:
    """By every record, without any snapshot."""
    state = State()
    await Ledger(bus, "0").replay(state)
    return state


async def started(bus: Bus) -> tuple[State, dict[str, Any], list[str]]:
    """As the next owner would find it: the state, what it says of the recovery, and which snapshots it passed over and why."""
    with structlog.testing.capture_logs() as logs:
        state, _ = await recover(Ledger(bus, "0"), Shelf(bus, "0"))
    said = next(dict(line) for line in logs if line["event"] == "budget.recovered")
    return state, said, [line["reason"] for line in logs if line["event"] == "budget.snapshot_passed_over"]


async def served(bus: Bus, first: int, count: int = 6) -> None:
    """An owner that grants, closes half, and stops cleanly."""
    async with owner_app(settings_of(bus)) as app:
        state = app[OWNER].state
        for n in range(first, first + count):
            assert isinstance(await Asker(bus).reserve(ask(f"r{n}", max_tokens=10)), Granted)
            if n % 2:
                await publish_priced(bus, usage(f"r{n}", nano_usd=1_000))
        await until(lambda: sum(f"r{n}" in state.closings for n in range(first, first + count)) == count // 2)


async def snapshots(bus: Bus) -> list[Snapshot]:
    return await Shelf(bus, "0").found()


async def test_a_clean_stop_leaves_a_snapshot_and_the_next_start_replays_nothing(governed: Bus) -> None:
    await served(governed, 0)
    state, said, passed_over = await started(governed)
    assert said["snapshot_seq"] == said["ledger_seq"] > 0
    assert said["replayed_records"] == 0
    assert not passed_over
    assert state == await replayed(governed)
    assert len(state.closings) == 3
    assert len(state.holds) == 3


async def test_a_snapshot_comes_every_so_many_records_and_the_newest_two_stay(governed: Bus) -> None:
    async with owner_app(settings_of(governed, snapshot_records=5)):
        asker, found = Asker(governed), list[int]()

        async def newer() -> bool:
            found[:] = [one.manifest.at.seq for one in await snapshots(governed)]
            return bool(found) and found[0] > last

        for n in range(3):
            last = found[0] if found else 0
            for m in range(6):
                await asker.reserve(ask(f"r{n}-{m}", max_tokens=10))
            await until(newer)
    kept = await snapshots(governed)
    assert len(kept) == 2
    assert len(await subjects(governed)) == 2
    assert (await started(governed))[0] == await replayed(governed)


async def test_a_damaged_snapshot_gives_way_to_the_one_before_and_to_the_whole_ledger(governed: Bus) -> None:
    await served(governed, 0)
    await served(governed, 6)
    newest, before = await snapshots(governed)
    js, stream = governed.client.jetstream(), governed.names.stream(SNAPSHOTS)
    await js.delete_msg(stream, newest.seq - newest.manifest.parts)
    state, said, passed_over = await started(governed)
    assert said["snapshot_seq"] == before.manifest.at.seq
    assert said["replayed_records"] > 0
    assert len(passed_over) == 1
    assert state == await replayed(governed)
    await js.delete_msg(stream, before.seq - before.manifest.parts)
    state, said, passed_over = await started(governed)
    assert said["snapshot_seq"] == 0
    assert len(passed_over) == 2
    assert state == await replayed(governed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": bytes(32)}, "another record"),
        ({"checksum": bytes(32)}, "checksum"),
        ({"shape": bytes(32)}, "another release"),
    ],
)
async def test_a_snapshot_that_does_not_fit_is_passed_over(governed: Bus, change: dict[str, Any], reason: str) -> None:
    await served(governed, 0)
    (found,) = await snapshots(governed)
    js = governed.client.jetstream()
    await js.delete_msg(governed.names.stream(SNAPSHOTS), found.seq)
    forged = {name: getattr(found.manifest, name) for name in found.manifest.__struct_fields__} | change
    await governed.append(found.name, encode(Manifest(**forged)))
    state, said, passed_over = await started(governed)
    assert reason in passed_over[0]
    assert said["snapshot_seq"] == 0
    assert state == await replayed(governed)


async def test_wherever_writing_breaks_off_the_next_start_is_right(
    governed: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker has after a kill, at each instant between the first part and the manifest."""
    monkeypatch.setattr(snapshot, "RIDS_IN_PART", 1)
    await served(governed, 0)
    (first,) = await snapshots(governed)
    await served(governed, 6)
    (newest, _) = await snapshots(governed)
    await governed.client.jetstream().purge_stream(
        governed.names.stream(SNAPSHOTS), subject=governed.names.subject(newest.name)
    )
    ledger, shelf, state = Ledger(governed, "0"), Shelf(governed, "0"), State()
    await ledger.replay(state)
    for broken_after in range(newest.manifest.parts + 1):
        captured = snapshot.capture(state, ledger.position, ledger.digest, ledger.priced)
        with monkeypatch.context() as patch:
            patch.setattr(governed, "append", dying(governed, broken_after))
            with pytest.raises(Killed):
                await shelf.write(captured, 1)
        state.closings.thaw()
        recovered, said, passed_over = await started(governed)
        assert recovered == state
        assert said["snapshot_seq"] == first.manifest.at.seq
        assert not passed_over
    assert len(await subjects(governed)) == newest.manifest.parts + 1
    await shelf.prune()
    assert len(await subjects(governed)) == 1


class Killed(Exception):
    """Here the process would be gone."""


def dying(bus: Bus, after: int) -> Callable[..., Awaitable[int]]:
    """Bus.append that stores so many records and never another."""
    real, left = bus.append, [after]

    async def append(*args: Any, **kwargs: Any) -> int:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return await real(*args, **kwargs)

    return append


async def test_a_process_killed_among_snapshots_loses_nothing(bus: Bus, owner: Owner) -> None:
    await owner.stop()
    owner.environ["BUDGET_SNAPSHOT_RECORDS"] = "1"
    asker = Asker(bus)
    for round_ in range(3):
        await bus.append(SNAPSHOT.format(shard="0", id=f"HALF{round_}"), b"half of a part")
        before = (await bus.end(SNAPSHOTS)).seq
        await owner.start()
        granted = [await asker.reserve(ask(f"r{round_}-{n}", max_tokens=10)) for n in range(20)]
        async with aclosing(bus.follow(SNAPSHOTS, after=before)) as lists:  # type: ignore[type-var]  # an async generator behind its interface
            await anext(lists)
        await owner.stop()
        state, _, passed_over = await started(bus)
        assert all(isinstance(answer, Granted) for answer in granted)
        assert {f"r{round_}-{n}" for n in range(20)} <= state.holds.keys()
        assert not passed_over
        assert state == await replayed(bus)
    async with owner_app(settings_of(bus)):
        pass
    assert len(await subjects(bus)) == len(await snapshots(bus)) <= 2


async def subjects(bus: Bus) -> list[str]:
    """Of all snapshots, finished or not."""
    every = bus.names.subject(SNAPSHOT.format(shard="0", id="*"))
    info = await bus.client.jetstream().stream_info(bus.names.stream(SNAPSHOTS), subjects_filter=every)
    return list(info.state.subjects or {})
