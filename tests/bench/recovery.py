"""`python -m tests.bench.recovery [RECORDS]`: how long an owner's recovery takes, and for how long a snapshot stops it.

Writes a ledger of so many records (a hold and its settled entry by turns), takes a snapshot 100,000 records before its end
while the longest stall of the event loop is watched, and recovers from that snapshot and from every record. JSON on
standard output.
"""

import asyncio
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

from ulid import ULID

from services.budget.core.snapshot import capture
from services.budget.core.state import State
from services.budget.handlers.keeper import recover
from services.budget.snapshots import Shelf
from services.budget.stores import NO_RECORD, Ledger
from shared import logs
from shared.bus import Bus, open_bus, provision
from shared.clock import now
from shared.contracts.ledger import Commit, EpochBegan, LedgerEvent
from shared.contracts.message import encode
from shared.contracts.streams import Position
from tests.fixtures.broker import Broker
from tests.fixtures.budget import Desk, ask, organisation, rule, usage

TAIL = 100_000
CHUNK = 500  # records under way at once


class Writer:
    """Writes what an owner writes, digests and all, without waiting for each acknowledgement."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._desk = Desk(organisation(team=[rule("team", 10**6, "day")], key=[rule("key", 10**6, "total")]))
        self._waiting: list[LedgerEvent] = [EpochBegan(owner_epoch=1, at=now())]
        self._digest = NO_RECORD

    async def write(self, records: int) -> None:
        for start in range(0, records, CHUNK):
            chunk = [self._record() for _ in range(min(CHUNK, records - start))]
            for record in chunk[:-1]:
                await self._bus.client.publish(self._bus.names.subject("ledger.0"), record)
            await self._bus.append("ledger.0", chunk[-1], timeout=60)

    def _record(self) -> bytes:
        if not self._waiting:
            rid = str(ULID())
            self._desk.grant(ask(rid))
            self._desk.close(usage(rid, nano_usd=10_000))
            self._waiting, self._desk.log = self._desk.log, []
        record = encode(
            Commit(
                shard="0",
                owner_epoch=1,
                at=now(),
                digest=self._digest,
                priced=Position(log_id="p"),
                events=(self._waiting.pop(0),),
            )
        )
        self._digest = hashlib.sha256(record).digest()
        return record


class Stalls:
    """The longest time that a task which only sleeps a millisecond was kept waiting."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - began - 0.001)


async def measure(bus: Bus, records: int) -> dict[str, object]:
    writer, shelf, ledger, state = Writer(bus), Shelf(bus, "0"), Ledger(bus, "0"), State()
    await writer.write(records - TAIL)
    await ledger.replay(state)
    found: dict[str, object] = {"records": records, "closed_attempts": len(state.closings)}
    stalls = Stalls()
    watching = asyncio.create_task(stalls.watch())
    began = time.perf_counter()
    captured = capture(state, ledger.position, ledger.digest, ledger.priced)
    found["capture_ms"] = round((time.perf_counter() - began) * 1_000, 3)
    manifest = await shelf.write(captured, now())
    found |= {"write_s": round(time.perf_counter() - began, 2), "parts": manifest.parts}
    watching.cancel()
    found["longest_stall_ms"] = round(stalls.longest * 1_000, 1)
    await writer.write(TAIL)
    began = time.perf_counter()
    recovered, since = await recover(Ledger(bus, "0"), shelf)
    found |= {"recovery_s": round(time.perf_counter() - began, 2), "from_snapshot_at": since}
    again, began = State(), time.perf_counter()
    await Ledger(bus, "0").replay(again)
    found |= {"full_replay_s": round(time.perf_counter() - began, 2), "same": again == recovered}
    return found


async def main(records: int) -> None:
    logs.configure("error")
    with tempfile.TemporaryDirectory() as directory:
        broker = Broker(Path(directory), sync="2m")  # only reading is measured
        broker.start()
        try:
            async with open_bus(broker.settings(), "bench") as bus:
                await provision(bus)
                print(json.dumps(await measure(bus, records), indent=2))  # noqa: T201  # its output
        finally:
            broker.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
