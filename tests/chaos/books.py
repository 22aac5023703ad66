"""Everything that was written down about a run, read once all has come to rest."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from shared.bus import Bus, BusSettings, Stored, open_bus
from shared.contracts.edge import RequestCompleted, UsageRecorded
from shared.contracts.ledger import Commit
from shared.contracts.message import Decoder
from shared.contracts.streams import LEDGER, REQUESTS, USAGE
from tests.fixtures import money
from tests.fixtures.up import Up

_commit = Decoder(Commit)
_usage = Decoder(UsageRecorded)
_completed = Decoder(RequestCompleted)
ROWS = "SELECT event_id, cost_nano_usd FROM usage"


class Record(msgspec.Struct, frozen=True):
    """One record of LEDGER, with the bytes that the next one's digest is made of."""

    seq: int
    data: bytes
    commit: Commit


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """bill: the provider's lines. rows: (event_id, nano-USD) as ClickHouse has them. caps: nano-USD of each hard budget."""

    records: list[Record]
    usage: list[UsageRecorded]
    requests: list[RequestCompleted]
    bill: list[dict[str, Any]] = []
    rows: list[tuple[str, int]] = []
    request_rows: list[str] = []
    caps: dict[str, int] = {}


async def of_broker(bus: Bus, caps: dict[str, int]) -> Books:
    """What the three logs hold."""
    return Books(
        records=[Record(stored.seq, stored.data, _commit.decode(stored.data)) for stored in await _all(bus, LEDGER)],
        usage=[usage for stored in await _all(bus, USAGE) for usage in _usage.decode_all(stored.data)],
        requests=[done for stored in await _all(bus, REQUESTS) for done in _completed.decode_all(stored.data)],
        caps=caps,
    )


async def of_installation(up: Up, bill: Path) -> Books:
    """The logs, the provider's bill, and the rows people query."""
    budgets = await asyncio.to_thread(money.budgets, up)
    caps = {item["id"]: item["limit_nano_usd"] for item in budgets}
    async with open_bus(BusSettings(url=f"nats://127.0.0.1:{up.ports['nats']}"), "chaos") as bus:
        found = await of_broker(bus, caps)
    rows = await asyncio.to_thread(money.rows, up, ROWS)
    requests = await asyncio.to_thread(money.rows, up, "SELECT request_id FROM requests")
    return msgspec.structs.replace(
        found,
        bill=money.bill_lines(bill),
        rows=[(row["event_id"], row["cost_nano_usd"]) for row in rows],
        request_rows=[row["request_id"] for row in requests],
    )


async def _all(bus: Bus, stream: str) -> list[Stored]:
    """All that is stored by now."""
    end = (await bus.end(stream)).seq
    found: list[Stored] = []
    if not end:
        return found
    async for messages in bus.follow(stream):
        found += messages
        if messages[-1].seq >= end:
            break
    return found
