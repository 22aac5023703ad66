"""An organisation moves between shards under load, and again while both owners are killed: every dollar goes with it."""

import asyncio
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml

from services.cli.commands.ledger import _verify
from services.cli.errors import Trouble
from services.simulator.load import Target, simulate
from services.simulator.load.mix import MIX
from shared.bus import BusSettings, open_bus
from tests.fixtures.money import bill_lines, budgets, rows, settled
from tests.fixtures.replica import holder
from tests.fixtures.up import SLUICEGATE, Up, running
from tests.fixtures.waiting import until

KEYS = {"free": "vk-moving-free", "capped": "vk-moving-capped"}
CAP_USD = 0.1
WELL = {kind: weight for kind, weight in MIX.items() if kind not in ("error", "broken", "disconnect")}
"""Calls that end well cost exactly what the provider bills, so that the books can be compared to the nano-dollar."""
MANY = ("--edges", "2", "--budgets", "2", "--shards", "2")


def document() -> str:
    keys = [
        {"id": "free", "secret": KEYS["free"], "budgets": [{"limit_usd": 500, "period": "month"}]},
        {
            "id": "capped",
            "secret": KEYS["capped"],
            "budgets": [{"limit_usd": CAP_USD, "period": "total", "queue_seconds": 1}],
        },
    ]
    return yaml.safe_dump(
        {
            "org": {"id": "mover", "budgets": [{"limit_usd": 1000, "period": "month"}]},
            "providers": [
                {
                    "name": "anthropic",
                    "kind": "anthropic",
                    "base_url": "https://api.anthropic.com",
                    "credential": "env:ANTHROPIC_API_KEY",
                }
            ],
            "customers": [{"id": "acme", "teams": [{"id": "platform", "keys": keys}]}],
        }
    )


async def test_an_organisation_moves_under_load_and_back_while_both_owners_are_killed(tmp_path: Path) -> None:
    file = tmp_path / "mover.yaml"
    file.write_text(document())
    async with running(tmp_path, org=file, arguments=MANY) as up:
        settings = BusSettings(url=f"nats://127.0.0.1:{up.ports['nats']}")
        free = asyncio.create_task(traffic(up, "free", 500, 21))
        capped = asyncio.create_task(traffic(up, "capped", 160, 22))
        await asyncio.sleep(2.0)
        assert not free.done()
        said = await command(up, "orgs", "move", "mover", "--shard", "1")
        assert said[0] == "mover moves to shard 1" and len(said) == 2 and said[1].startswith("in force on 2 of 2 edges")
        async with open_bus(settings, "test") as bus:
            for count, dies in enumerate(("source", "target", "both", "source")):
                source, target = ("1", "0") if count % 2 == 0 else ("0", "1")
                dying = {"source": source, "target": target, "both": source + target}[dies]
                pids = {up.now()["pids"][await holder(bus, shard)][0] for shard in dying}
                await until(partial(moved, up, target), 20, "an owner for each shard")
                await asyncio.sleep(0.012 * count)  # the whole move takes about 50 ms
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                await until(partial(running_owners, up, pids), 20, "the owners again")
                assert not free.done()
        summaries = await free, await capped
        await settled(up, 90)
        await asyncio.to_thread(books_agree, up)
        checks = await _verify(settings, "", f"{up.clickhouse_url}/sluicegate", lambda done, total: None)
        assert [msgspec.structs.asdict(check) for check in checks if check.state == "fail"] == []
        assert summaries[0].statuses == {"200": 500}, "nobody was refused for it"
        assert set(summaries[1].statuses) - {"200"}, f"the cap was reached: {summaries[1]}"
        # what lives there now decides by all that was spent in both
        assert (await traffic(up, "capped", 6, 23)).statuses.get("200", 0) < 6
        assert (await traffic(up, "free", 4, 24)).statuses == {"200": 4}


async def traffic(up: Up, key: str, count: int, seed: int) -> Any:
    target = Target(base_url=up.base_url, keys=(KEYS[key],))
    return await simulate(
        target, count=count, concurrency=12, seed=seed, mix=WELL, patience=40, directives="ttft_ms=300"
    )


async def command(up: Up, *words: str) -> list[str]:
    environ = os.environ | {"SLUICEGATE_URL": up.console_url, "SLUICEGATE_ADMIN_TOKEN": up.admin_token}
    process = await asyncio.create_subprocess_exec(str(SLUICEGATE), *words, stdout=asyncio.subprocess.PIPE, env=environ)
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, output
    return output.decode().splitlines()


async def moved(up: Up, shard: str) -> bool:
    """Told to; refused as long as nobody owns that shard."""
    try:
        await asyncio.to_thread(up.api.raw, "PATCH", "/api/v1/orgs/mover", json.dumps({"shard": shard}).encode())
    except Trouble as error:
        assert "no owner answers" in str(error)
        return False
    return True


def running_owners(up: Up, gone: set[int]) -> bool:
    pids = {pid for name in ("budget", "budget-2") for pid in up.now()["pids"][name]}
    return len(pids) == 2 and not pids & gone


def books_agree(up: Up) -> None:
    found = rows(up, "SELECT shard, key, rid, cost_nano_usd, estimated, upstream_request_id FROM usage")
    billed = {line["request_id"]: line["cost_nano_usd"] for line in bill_lines(up.bill)}
    booked: dict[str, int] = {}
    for row in found:
        named = row["upstream_request_id"]
        booked[named] = booked.get(named, 0) + row["cost_nano_usd"]
    cut = {row["upstream_request_id"] for row in found if row["estimated"]}  # at the cap, and nowhere else
    assert booked.keys() - {""} == billed.keys()
    assert {name for name, cost in billed.items() if booked[name] != cost} <= cut
    assert len({row["rid"] for row in found if row["upstream_request_id"]}) == len(billed)
    assert {row["key"] for row in found if row["estimated"]} <= {"capped"}
    assert {row["shard"] for row in found} == {"0", "1"}, "each shard had it for a while"
    spent = {item["id"]: item["spent_nano_usd"] for item in budgets(up)}
    assert next(spent[name] for name in spent if name.startswith("org:")) == sum(row["cost_nano_usd"] for row in found)
    by_key: dict[str, int] = {}
    for row in found:
        by_key[row["key"]] = by_key.get(row["key"], 0) + row["cost_nano_usd"]
    totals = sorted(item["spent_nano_usd"] for item in budgets(up) if item["scope"] == "key")
    assert totals == sorted(by_key.values())
    assert 0 < min(totals) <= CAP_USD * 1_000_000_000
