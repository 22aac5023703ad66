"""Each ledger entry is exactly one row, whatever dies."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

import pytest
from msgspec.structs import replace

from services.analytics.settings import Settings
from services.analytics.stores.database import open_database
from services.analytics.stores.migrations import migrate
from shared.bus import Bus, BusSettings, open_bus, provision
from shared.contracts.attribution import Principal
from shared.contracts.config import ConfigChanged, Key, Team
from shared.contracts.message import encode
from shared.contracts.streams import LEDGER
from shared.errors import Unavailable
from tests.fixtures.analytics import Analytics
from tests.fixtures.broker import Broker
from tests.fixtures.ledger import START, commit, entry, held, request
from tests.fixtures.waiting import until

DECEMBER = 1_796_083_200_000_000  # 2026-12-01T00:00:00Z
TOTALS = "SELECT count(), uniqExact(event_id), sum(cost_nano_usd), max(stream_seq) FROM usage_v1"


@contextmanager
def running(folder: Path, bus: BusSettings) -> Iterator[Analytics]:
    service = Analytics(folder, bus)
    service.start()
    try:
        yield service
    finally:
        service.stop()


async def append(bus: Bus, *entries_at: int) -> int:
    """One commit of one entry, at each instant; returns the last sequence."""
    seq = 0
    for at in entries_at:
        seq = await bus.append("ledger.0", encode(commit(entry(at=at), at=at)))
    return seq


async def count(service: Analytics) -> int:
    return int((await service.rows("SELECT count() FROM usage"))[0][0])


async def test_a_row_can_be_queried_soon_after_its_commit(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> None:
    with running(tmp_path, bus_settings) as service:
        booked = entry()
        await bus.append("ledger.0", encode(commit(held("A"), booked)))

        async def found() -> bool:
            query = "SELECT 1 FROM usage WHERE event_id = {id:String}"
            return bool(service.client().query(query, parameters={"id": booked.event_id}).result_rows)

        await until(found, 5)


async def test_the_service_is_ready_when_what_was_committed_before_its_start_is_in_the_table(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    await append(bus, START, DECEMBER - 1, DECEMBER, START)
    await bus.append("ledger.0", encode(commit(held("A"))))
    with running(tmp_path, bus_settings) as service:
        assert await count(service) == 4
        assert await service.rows("SELECT DISTINCT _partition_id FROM usage_v1 ORDER BY 1") == [
            ("202611",),
            ("202612",),
        ]


async def test_a_clean_stop_and_start_repeats_nothing(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> None:
    await append(bus, START, START + 1)
    with running(tmp_path, bus_settings) as service:
        assert service.stop(SIGTERM) == 0
        await append(bus, START + 2)
        service.start()
        assert await service.rows("SELECT count(), max(stream_seq) FROM usage_v1") == [(3, 3)]


async def never_merge(folder: Path) -> None:
    """A merge would fold a row that was written twice, and hide it."""
    async with open_database(Settings(data_dir=str(folder / "clickhouse"))) as database:
        await migrate(database)
        for pool in ("max", "min"):
            await database.command(
                f"ALTER TABLE sluicegate.usage_v1 MODIFY SETTING max_bytes_to_merge_at_{pool}_space_in_pool = 1"
            )


async def test_kills_at_any_instant_leave_one_row_per_entry(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    await never_merge(tmp_path)
    stop = asyncio.Event()
    cost, entries, n = 0, 0, 0

    async def commits() -> None:
        nonlocal cost, entries, n
        while not stop.is_set():
            n += 1
            at = DECEMBER + (n - 400) * 1000  # crosses the border of a month
            booked = [entry(f"R{n:05}E{i}", at=at, tokens={"input": n + i}) for i in range(n % 4)]
            await bus.append("ledger.0", encode(commit(held("A"), *booked, at=at)))
            cost += sum(one.usage.cost_nano_usd for one in booked)
            entries += len(booked)
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(commits())
    with running(tmp_path, bus_settings) as service:
        for seed in range(8):
            await asyncio.sleep(random.Random(seed).uniform(0.05, 0.9))
            service.stop()
            service.launch()  # not awaited on most rounds: a kill may fall into the start
            if seed % 3 == 0:
                await asyncio.to_thread(service.await_ready)
        stop.set()
        await writer
        await asyncio.to_thread(service.await_ready)

        async def whole() -> bool:
            return int((await service.rows(TOTALS))[0][0]) >= entries

        await until(whole, 60)
        rows = await service.rows(TOTALS)
        assert rows[0][:3] == (entries, entries, cost)
        assert await service.rows("SELECT count(), sum(cost_nano_usd) FROM usage") == [(entries, cost)]
        assert n > 400


async def test_a_broker_that_is_killed_costs_no_row_and_doubles_none(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "nats")
    broker.start()
    try:
        async with open_bus(broker.settings(), "test") as bus:
            await provision(bus)
            with running(tmp_path, broker.settings()) as service:
                for n in range(60):
                    if n % 20 == 10:
                        broker.stop()
                        broker.start()
                    await insist(bus, n)
                end = (await bus.end(LEDGER)).seq

                async def written() -> bool:
                    return bool((await service.rows("SELECT max(stream_seq) FROM usage_v1"))[0][0] == end)

                await until(written, 60)
                assert await service.rows("SELECT count(), uniqExact(event_id) FROM usage_v1") == [(60, 60)]
    finally:
        broker.stop()


async def insist(bus: Bus, n: int) -> None:
    """Append until the broker says that it has it."""
    data = encode(commit(entry(f"R{n}", at=START + n), at=START + n))
    while True:
        try:
            await bus.append("ledger.0", data, msg_id=f"R{n}")
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_log_made_anew_is_read_from_its_beginning_and_an_alarm_is_raised(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    await append(bus, START, START + 1, START + 2)
    with running(tmp_path, bus_settings) as service:
        service.stop()
        await bus.client.jetstream().delete_stream(bus.names.stream(LEDGER))
        await provision(bus)
        await append(bus, START + 3)
        service.start()
        assert await count(service) == 4
        assert "log_replaced" in service.log


async def test_a_log_read_again_changes_no_sum(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> None:
    """As after a restore of the broker: the same records under another log_id."""
    records = [encode(commit(entry(f"R{n}", at=START + n), at=START + n)) for n in range(5)]
    for record in records:
        await bus.append("ledger.0", record)
    with running(tmp_path, bus_settings) as service:
        service.stop()
        await bus.client.jetstream().delete_stream(bus.names.stream(LEDGER))
        await provision(bus)
        for record in records:
            await bus.append("ledger.0", record)
        service.start()
        assert await count(service) == 5


async def test_a_log_made_anew_while_it_is_followed_ends_the_service_which_then_reads_the_new_one(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    await append(bus, START, START + 1)
    service = Analytics(tmp_path, bus_settings, log_check_seconds="1")
    service.start()
    try:
        await bus.client.jetstream().delete_stream(bus.names.stream(LEDGER))
        await provision(bus)
        await append(bus, START + 2)
        assert service.process
        assert await asyncio.to_thread(service.process.wait, 20) == 1
        service.start()
        assert await count(service) == 3
    finally:
        service.stop()


async def test_an_entry_without_lines_charges_or_tags_is_a_row_too(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    void = entry("V", kind="void", tokens={})
    usage = replace(void.usage, usage=replace(void.usage.usage, principal=Principal(), sent_at=0, ttft_ms=-1))
    await bus.append("ledger.0", encode(commit(replace(void, usage=usage, charges=()))))
    with running(tmp_path, bus_settings) as service:
        rows = await service.rows("SELECT kind, cost_nano_usd, lines, charges, tags, org, sent_at, ttft_ms FROM usage")
        assert rows == [("void", 0, [], [], {}, "", None, None)]


async def test_a_rename_and_a_deletion_show_in_old_rows(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> None:
    def change(rev: int, *puts: Team | Key, deletes: tuple[str, ...] = ()) -> bytes:
        return encode(ConfigChanged(config_rev=rev, at=rev, actor="admin", puts=puts, deletes=deletes))

    await append(bus, START)
    team = Team(uid="TEAM", org="ORG", customer="CUSTOMER", id="platform")
    key = Key(uid="KEY", org="ORG", customer="CUSTOMER", team="TEAM", id="dev", owner="asha@acme.example")
    await bus.append("config.changed", change(1, team, key))
    with running(tmp_path, bus_settings) as service:

        async def names(expected: tuple[str, str, str]) -> bool:
            return list(await service.rows("SELECT team, key, owner FROM usage")) == [expected]

        await until(lambda: names(("platform", "dev", "asha@acme.example")))
        await bus.append("config.changed", change(2, Team(uid="TEAM", org="ORG", customer="CUSTOMER", id="core")))
        await bus.append("config.changed", change(3, deletes=("KEY",)))
        await until(lambda: names(("core", "dev", "asha@acme.example")))

        async def deleted() -> bool:
            return list(await service.rows("SELECT id, deleted FROM directory WHERE uid = 'KEY'")) == [("dev", True)]

        await until(deleted)
        service.stop()
        service.start()
        assert await names(("core", "dev", "asha@acme.example"))


async def test_requests_arrive_while_the_ledger_is_silent(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> None:
    with running(tmp_path, bus_settings) as service:
        await bus.append("request.completed", encode(request("req_9", verdict="refused")))

        async def arrived() -> bool:
            return list(await service.rows("SELECT request_id, verdict FROM requests")) == [("req_9", "refused")]

        await until(arrived)


@pytest.mark.parametrize("broken", ["second start", "data_dir is a file"])
async def test_a_start_that_cannot_work_ends_with_one_line(
    bus: Bus, bus_settings: BusSettings, tmp_path: Path, broken: str
) -> None:
    if broken == "data_dir is a file":
        (tmp_path / "clickhouse").write_text("")
        service = Analytics(tmp_path, bus_settings)
        service.launch()
        assert service.process
        assert await asyncio.to_thread(service.process.wait, 20) == 1
        assert "service.stopped" in service.log
        return
    with running(tmp_path, bus_settings) as first:
        (tmp_path / "second").mkdir()
        second = Analytics(tmp_path / "second", bus_settings, data_dir=str(tmp_path / "clickhouse"))
        second.launch()
        assert second.process
        assert await asyncio.to_thread(second.process.wait, 20) == 1
        assert "is in use by another process" in second.log
        await append(bus, START)
        await until(lambda: count(first))
