"""`sluicegate ledger`"""

import asyncio
from collections.abc import Callable

import click
import msgspec
from rich.console import Console
from rich.progress import Progress

from services.budget.core.inspection import Check
from services.budget.explain import Step, story
from services.budget.stores import written_shards
from services.budget.verify import ClickHouse, Verifier
from services.cli import options, output
from services.cli.api import Target
from services.cli.broker import Broker, local, named, unreadable
from services.cli.errors import Trouble
from services.cli.output import Column
from shared import clock, logs
from shared.bus import BusSettings, open_bus
from shared.contracts.budget import DEFAULT_SHARD
from shared.errors import Unavailable

CHECKS = (Column("check", "name"), Column("", "state"), Column("", "said"))
DATABASE = "sluicegate"


@click.group("ledger")
def command() -> None:
    """The log that money comes from."""


@command.command("verify")
@named
@click.option("--shard", default="", help="One alone; every shard that has records if left out.")
@click.option("--clickhouse-url", default="", help="As http://…/DATABASE; the one that runs here if left out.")
@options.as_json
@options.targeted
def verify(broker: Broker, shard: str, clickhouse_url: str, as_json: bool, target: Target) -> None:
    """Replay the ledger and check everything it promises. Exit code 1 when a check fails."""
    logs.configure("error")
    settings = broker.settings(target)
    if not clickhouse_url and broker.is_local:
        clickhouse_url = f"{local(target, 'http', 'clickhouse')}/{DATABASE}"
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading the ledger", total=None)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        checks = asyncio.run(_verify(settings, shard, clickhouse_url, told))
    good = all(check.state != "fail" for check in checks)
    if as_json:
        output.show_json({"intact": good, "checks": [msgspec.structs.asdict(check) for check in checks]})
    else:
        _show(checks, good)
    raise SystemExit(0 if good else 1)


async def _verify(
    settings: BusSettings, shard: str, clickhouse_url: str, progress: Callable[[int, int], None]
) -> list[Check]:
    try:
        async with open_bus(settings, "ledger verify") as bus:
            table = await _table(clickhouse_url) if clickhouse_url else None
            shards = [shard] if shard else await written_shards(bus) or [DEFAULT_SHARD]
            checks: list[Check] = []
            for each in shards:
                found = await Verifier(bus, each, table, progress).run()
                for check in found if len(shards) > 1 else ():
                    check.name = f"shard {each}: {check.name}"
                checks += found
            return checks
    except Unavailable as error:
        raise unreadable(settings, error) from None


async def _table(url: str) -> ClickHouse:
    """Raises Trouble: what was named or runs here must answer."""
    try:
        return await ClickHouse.at(url)
    except Unavailable as error:
        raise Trouble(f"ClickHouse at {url} does not answer ({str(error.__cause__)[:200]})") from None


def _show(checks: list[Check], good: bool) -> None:
    print("the ledger is sound" if good else "THE LEDGER IS NOT SOUND")
    output.show([msgspec.structs.asdict(check) for check in checks], CHECKS, as_json=False)
    for check in checks:
        for failure in check.failures:
            print(f"  {check.name}: {failure}")
        if check.failed > len(check.failures):
            print(f"  {check.name}: and {check.failed - len(check.failures):,} more")


@command.command("explain")
@click.argument("rid")
@named
@click.option("--shard", default="", help="One alone; every shard that has records if left out.")
@options.as_json
@options.targeted
def explain(rid: str, broker: Broker, shard: str, as_json: bool, target: Target) -> None:
    """Tell the story of one attempt: its hold, what changed it, its entries. RID as `sluicegate requests` shows it."""
    logs.configure("error")
    settings = broker.settings(target)
    with Console(stderr=True).status("reading the ledger"):
        steps = asyncio.run(_story(settings, shard, rid))
    if not steps:
        raise Trouble(
            f"the ledger{f' of shard {shard}' if shard else ''} has nothing about {rid}: "
            "it was never admitted, or is no attempt's id"
        )
    if as_json:
        output.show_json({"rid": rid, "steps": [msgspec.structs.asdict(step) for step in steps]})
        return
    for step in steps:
        print(f"{clock.rfc3339(step.at)}  record {step.seq:,}, epoch {step.owner_epoch}\n  {step.words}")


async def _story(settings: BusSettings, shard: str, rid: str) -> list[Step]:
    try:
        async with open_bus(settings, "ledger explain") as bus:
            shards = [shard] if shard else await written_shards(bus)
            return [step for each in shards for step in await story(bus, each, rid)]
    except Unavailable as error:
        raise unreadable(settings, error) from None
