"""Many dear calls at once against a small budget, through everything that `sluicegate up` runs. `python -m tests.bench.race`

Each case: what the provider has billed, what the ledger has booked, and how many calls were served whole. The provider is the
simulator, whose bill is the oracle; what it makes after we have hung up is on that bill too.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
import yaml

from services.simulator.load import Target, simulate
from tests.fixtures.money import bill_lines, bill_nano_usd, rows, settled
from tests.fixtures.up import Up, running

KEY, OTHER = "vk-race-itself", "vk-race-ordinary"
CALLS = 50
LIMIT_USD = 5
ORDINARY = 1_000
WISH = "cost_usd=0.50,chunks=10,chunk_ms=200"  # $0.50 in 2 s
MODEL, MAX_TOKENS = "claude-opus-5-5", 24_900


class Case(msgspec.Struct, frozen=True):
    """streams: of all calls, every how-manieth streams; 0 none."""

    name: str
    streamed: int = 2
    edges: int = 1
    warm: bool = False
    tiers: bool = False
    kill: bool = False


CASES = (
    Case("cold, half streamed"),
    Case("cold, not streamed", streamed=0),
    Case("cold, streamed", streamed=1),
    Case("cold, two edges", edges=2),
    Case("cold, budget killed meanwhile", kill=True),
    Case("cold, four tiers: team $5, key $50", tiers=True),
    Case("warm, streamed", streamed=1, warm=True),
)


def organisation(folder: Path, case: Case) -> Path:
    """The team has the $5; with tiers there are budgets with room above and below it."""

    def budget(limit_usd: float) -> list[dict[str, object]]:
        return [{"limit_usd": limit_usd, "period": "month"}]

    racer: dict[str, object] = {"id": "racer", "secret": KEY}
    team: dict[str, object] = {"id": "racing", "budgets": budget(LIMIT_USD), "keys": [racer]}
    customer: dict[str, object] = {"id": "acme", "teams": [team]}
    if case.tiers:
        racer["budgets"], customer["budgets"] = budget(50), budget(500)
    if case.warm:  # the ordinary calls are another budget's, and teach all the same: org and customer know them
        customer["teams"] = [team, {"id": "usual", "keys": [{"id": "usual", "secret": OTHER}]}]
    provider = {"name": "anthropic", "kind": "anthropic", "base_url": "https://api.anthropic.com"}
    document = {
        "contact": "platform@acme.example",
        "providers": [provider | {"credential": "env:ANTHROPIC_API_KEY"}],
        "customers": [customer],
    }
    path = folder / "org.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


async def call(session: aiohttp.ClientSession, base_url: str, number: int, stream: bool) -> str:
    """whole, cut, or the refusal's reason."""
    body = {"model": MODEL, "max_tokens": MAX_TOKENS, "stream": stream}
    body["messages"] = [{"role": "user", "content": f"call {number}"}]
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "x-simulator": WISH}
    async with session.post(f"{base_url}/v1/messages", json=body, headers=headers) as answer:
        text = await answer.text()
    if answer.status != 200:
        return f"{answer.status} {json.loads(text)['error']['type']}"
    return "cut" if stream and "message_stop" not in text else "whole"


async def race(up: Up, case: Case) -> Counter[str]:
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        calls = (call(session, up.base_url, n, bool(case.streamed) and n % case.streamed == 0) for n in range(CALLS))
        running_calls = asyncio.gather(*calls)
        if case.kill:
            await asyncio.sleep(1.0)
            for pid in up.now()["pids"]["budget"]:
                os.kill(pid, signal.SIGKILL)
        return Counter(await running_calls)


async def play(case: Case) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        arguments = ("--edges", str(case.edges)) if case.edges > 1 else ()
        async with running(folder, org=organisation(folder, case), arguments=arguments) as up:
            if case.warm:
                target = Target(base_url=up.base_url, keys=(OTHER,))
                await simulate(target, count=ORDINARY, concurrency=50, seed=1)
                await settled(up)
            before = len(bill_lines(up.bill))
            billed_before = bill_nano_usd(up.bill)
            outcomes = await race(up, case)
            await settled(up, 120)
            spent = rows(up, "SELECT sum(cost_nano_usd) AS n FROM usage WHERE team = 'racing'")[0]["n"]
            cut = rows(up, "SELECT sum(cost_nano_usd) AS n FROM usage WHERE outcome = 'cut'")[0]["n"]
            return {
                "case": case.name,
                "billed_usd": round((bill_nano_usd(up.bill) - billed_before) / 1e9, 4),
                "booked_usd": round(spent / 1e9, 4),
                "attempts_billed": len(bill_lines(up.bill)) - before,
                "cut_usd": round(cut / 1e9, 4),
                **outcomes,
            }


async def main() -> None:
    for case in CASES:
        sys.stdout.write(json.dumps(await play(case)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
