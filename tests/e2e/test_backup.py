"""What is copied away while it runs stands up elsewhere: the ledger is whole, and every counter is what it was."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import nats

from shared.contracts.streams import BUCKETS as BUCKET_NAMES
from shared.contracts.streams import STREAMS
from tests.fixtures.broker import Broker
from tests.fixtures.stream_backup import BUCKETS, IN_ORDER, Backup, backup, restore
from tests.fixtures.up import SLUICEGATE, Up, running
from tests.fixtures.waiting import until

MESSAGE = {"model": "claude-haiku-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}

FILES = ("admin-token", "first-key", "simulator/port")
"""Beside the streams; the port, since the organisation names the simulator by it."""


async def spend(up: Up, calls: int) -> None:
    headers = {"authorization": f"Bearer {up.first_key}", "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession() as session:
        for _ in range(calls):
            async with session.post(f"{up.base_url}/v1/messages", json=MESSAGE, headers=headers) as answer:
                assert answer.status == 200, await answer.text()


def counters(up: Up) -> dict[str, tuple[int, int]]:
    """(spent, held) of every budget, in nano-USD."""
    items = up.api.get("/api/v1/budgets")["items"]
    return {item["id"]: (item["spent_nano_usd"], item["held_nano_usd"]) for item in items}


async def at_rest(up: Up, entries: int) -> dict[str, tuple[int, int]]:
    """Counters when so many entries are booked and stand in the tables, and the edges have given back what was lent to them."""

    async def booked() -> bool:
        rows = await asyncio.to_thread(up.api.get, "/api/v1/usage")
        return bool(sum(row["requests"] for row in rows["items"]) == entries)

    async def nothing_held() -> bool:
        found = await asyncio.to_thread(counters, up)
        return all(held == 0 for _, held in found.values())

    await until(booked, 20, f"{entries} entries in the report")
    await until(nothing_held, 30, "leases to be given back")
    return await asyncio.to_thread(counters, up)


async def verified(up: Up) -> Mapping[str, Any]:
    """What `sluicegate ledger verify` says; it must be content."""
    command = (str(SLUICEGATE), "ledger", "verify", "--json", "--data-dir", str(up.data_dir))
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["intact"]
    assert not [check for check in found["checks"] if check["state"] == "skipped"]
    return found


def test_the_order_of_a_backup_leaves_no_stream_out() -> None:
    assert set(IN_ORDER) == set(STREAMS)
    assert set(BUCKETS) == {f"KV_{bucket}" for bucket in BUCKET_NAMES}


async def test_a_data_directory_that_was_copied_at_rest_goes_on_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    async with running(here) as up:
        await spend(up, 3)
        before = await at_rest(up, 3)
    await asyncio.to_thread(shutil.copytree, here, there, symlinks=True)
    async with running(there) as up:
        assert await at_rest(up, 3) == before
        await verified(up)
        await spend(up, 1)
        after = await at_rest(up, 4)
        assert after != before


async def test_streams_that_were_saved_while_all_runs_make_an_installation_anew(tmp_path: Path) -> None:
    """Nothing of the old one is left but the backup: no tables, no spool, no bill."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    async with running(here) as up:
        await spend(up, 3)
        before = await at_rest(up, 3)
        saved = await _save(f"nats://127.0.0.1:{up.ports['nats']}")
        await spend(up, 2)  # after the backup: what a disaster costs
        await at_rest(up, 5)
        files = {name: (up.data_dir / name).read_text() for name in FILES}
    await _stand_up(saved, there / "data", files)
    async with running(there) as up:
        assert await at_rest(up, 3) == before
        await verified(up)
        await spend(up, 1)
        await at_rest(up, 4)


async def _save(url: str) -> list[Backup]:
    client = await nats.connect(url)
    try:
        return [await backup(client, stream) for stream in (*IN_ORDER, *BUCKETS)]
    finally:
        await client.close()


async def _stand_up(saved: list[Backup], data: Path, files: Mapping[str, str]) -> None:
    """A broker on an empty store is given the streams; its store is then what `up` finds."""
    broker = Broker(data / "nats")
    broker.start()
    client = await nats.connect(broker.url)
    for each in saved:
        await restore(client, each)
    await client.close()
    await asyncio.to_thread(broker.stop)
    for name, text in files.items():
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text(text)
        (data / name).chmod(0o600)
