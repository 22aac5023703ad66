"""`sluicegate up` with several edges, budget replicas and shards: one installation that lives on when parts of it die."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import yaml

from services.cli.commands.ledger import _verify
from services.cli.commands.status import local
from services.simulator.load import Target, simulate
from services.simulator.load.mix import MIX
from shared.bus import BusSettings, open_bus
from shared.contracts.streams import EDGES
from tests.fixtures.money import bill_nano_usd, budgets, rows, settled
from tests.fixtures.replica import holder
from tests.fixtures.up import Up, running
from tests.fixtures.waiting import until

KEYS = {"near": "vk-two-orgs-near", "far": "vk-two-orgs-far"}
WELL = {kind: weight for kind, weight in MIX.items() if kind not in ("error", "broken", "disconnect")}
"""Calls that end well cost exactly what the provider bills, so that the books can be compared to the nano-dollar."""
MANY = ("--edges", "2", "--budgets", "2", "--shards", "2")


def document(org: str, shard: str, base_url: str) -> str:
    key = {"id": "dev", "secret": KEYS[org], "budgets": [{"limit_usd": 500, "period": "month"}]}
    return yaml.safe_dump(
        {
            "org": {"id": org, "shard": shard, "budgets": [{"limit_usd": 1000, "period": "month"}]},
            "providers": [
                {
                    "name": "anthropic",
                    "kind": "anthropic",
                    "base_url": base_url,
                    "credential": "env:ANTHROPIC_API_KEY",
                }
            ],
            "customers": [{"id": "acme", "teams": [{"id": "platform", "keys": [key]}]}],
        }
    )


async def test_two_organisations_on_two_shards_outlive_the_owners_and_every_dollar_is_where_it_belongs(
    tmp_path: Path,
) -> None:
    file = tmp_path / "near.yaml"
    file.write_text(document("near", "0", "https://api.anthropic.com"))
    async with running(tmp_path, org=file, arguments=MANY) as up:
        assert {"edge", "edge-2", "budget", "budget-2"} <= set(up.ports["pids"])
        assert {process["state"] for process in await asyncio.to_thread(local, up.now())} == {"ready"}
        (provider,) = await asyncio.to_thread(up.api.all, "/api/v1/providers")
        await asyncio.to_thread(
            up.api.post_yaml, "/api/v1/organisation", document("far", "1", provider["base_url"]), {"wait": "5"}
        )
        target = Target(base_url=up.base_url, keys=tuple(KEYS.values()))
        traffic = asyncio.create_task(
            simulate(target, count=150, concurrency=16, seed=11, mix=WELL, patience=40, directives="ttft_ms=200")
        )
        settings = BusSettings(url=f"nats://127.0.0.1:{up.ports['nats']}")
        async with open_bus(settings, "test") as bus:
            assert {await holder(bus, shard) for shard in "01"} == {"budget", "budget-2"}
            assert len(await bus.values(EDGES)) == 2
            for name in ("budget", "budget-2"):
                await asyncio.sleep(1.0)
                await _kill(up, name)
            summary = await traffic
            await settled(up, 90)
            await asyncio.to_thread(_books_agree, up, summary.statuses)
            checks = await _verify(settings, "", f"{up.clickhouse_url}/sluicegate", lambda done, total: None)
        assert {check.name.partition(":")[0] for check in checks} == {"shard 0", "shard 1"}
        assert [msgspec.structs.asdict(check) for check in checks if check.state == "fail"] == []
        await _kill(up, "edge")
        await until(lambda: _answers(target), 20, "the other edge, or the new one, to answer")
    # a spool that was left behind is a worker's still, and so is what it may have to tell
    async with running(tmp_path, org=file) as up:
        assert {"edge", "edge-2", "budget"} == {name for name in up.ports["pids"] if name[0] in "eb"}
        assert "2 edges instead of 1" in up.said()
        assert {budget["org"] for budget in await asyncio.to_thread(budgets, up)} == {"near", "far"}


async def _answers(target: Target) -> bool:
    summary = await simulate(target, count=4, concurrency=2, seed=3, mix=WELL, patience=5)
    return summary.statuses.get("200", 0) == 4


async def _kill(up: Up, name: str) -> None:
    (before,) = up.now()["pids"][name]
    os.kill(before, signal.SIGKILL)
    await until(lambda: up.now()["pids"][name] != [before], 15, f"another {name}")


def _books_agree(up: Up, statuses: dict[str, int]) -> None:
    found = rows(up, "SELECT shard, org, edge, cost_nano_usd, estimated FROM usage")
    assert sum(row["cost_nano_usd"] for row in found) == bill_nano_usd(up.bill)
    assert not any(row["estimated"] for row in found)
    assert statuses == {"200": 150}, "nobody was refused"
    assert len({row["edge"] for row in found}) == 2, "both edges had traffic on the one port"
    by_org: dict[str, int] = {}
    for row in found:
        by_org[row["org"]] = by_org.get(row["org"], 0) + row["cost_nano_usd"]
    assert len({(row["org"], row["shard"]) for row in found}) == 2, "each organisation is in one shard"
    spent: dict[str, Any] = {item["org"]: item["spent_nano_usd"] for item in budgets(up) if item["scope"] == "org"}
    assert spent == by_org
