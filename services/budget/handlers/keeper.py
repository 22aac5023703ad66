"""Writes a snapshot every so many records and at the end, beside the owner's work."""

import asyncio
import time

import structlog

from services.budget.core.snapshot import capture, unsound
from services.budget.core.state import State
from services.budget.handlers.owner import Owner
from services.budget.snapshots import Shelf, Unreadable
from services.budget.stores import Ledger
from shared import telemetry
from shared.errors import Unavailable

log = structlog.get_logger()

LOOK_SECONDS = 1.0


async def recover(ledger: Ledger, shelf: Shelf) -> tuple[State, int]:
    """The state as the ledger has it, and how far a snapshot already holds it. Snapshots only save time: any that cannot be
    used is passed over, and without one the whole ledger is replayed. Raises LogUnfit, Unavailable.
    """
    began = time.perf_counter()
    state, since = State(), 0
    for snapshot in await shelf.found():
        try:
            state = await shelf.read(snapshot)
        except Unreadable as error:
            log.warning("budget.snapshot_passed_over", ledger_seq=snapshot.manifest.at.seq, reason=str(error))
            continue
        since = snapshot.manifest.at.seq
        ledger.stand(snapshot.manifest.at, snapshot.manifest.digest, state.priced)
        break
    loaded = time.perf_counter()
    records = await ledger.replay(state)
    if problem := unsound(state):
        # the log is what it is and no restart mends it, so we go on: `sluicegate ledger verify` tells more
        log.error("budget.ledger_unsound", problem=problem)
    log.info(
        "budget.recovered",
        snapshot_seq=since,
        replayed_records=records,
        ledger_seq=ledger.seq,
        snapshot_ms=round((loaded - began) * 1_000),
        replay_ms=round((time.perf_counter() - loaded) * 1_000),
        closed_attempts=len(state.closings),
        holds=len(state.holds),
    )
    return state, since


class Keeper:
    """every: records of the ledger between two snapshots. since: the record that the newest one holds."""

    def __init__(self, owner: Owner, ledger: Ledger, shelf: Shelf, every: int, since: int) -> None:
        self._owner = owner
        self._ledger = ledger
        self._shelf = shelf
        self._every = every
        self._since = since
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """For ever. What goes wrong here costs the next start time, and nothing else."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._ledger.seq - self._since >= self._every:
                await self._try()

    async def close(self, seconds: float) -> None:
        """The last one, on a clean stop; after it the owner may write a few records more."""
        try:
            async with asyncio.timeout(seconds):
                await self._try()
        except TimeoutError:
            log.warning("budget.snapshot_not_finished", seconds=seconds)

    async def _try(self) -> None:
        try:
            async with self._writing:
                await self._write()
        except Unavailable:
            log.warning("budget.snapshot_failed", ledger_seq=self._ledger.seq)

    async def _write(self) -> None:
        async with self._owner.between_records:
            if not self._owner.durable or self._ledger.seq == self._since:
                return  # overtaken or failed: what is in memory may not be in the ledger
            began = time.perf_counter()
            captured = capture(self._owner.state, self._ledger.position, self._ledger.digest, self._ledger.priced)
            pause = time.perf_counter() - began
        try:
            manifest = await self._shelf.write(captured, self._owner.now())
        finally:
            self._owner.state.closings.thaw()
        self._since = captured.at.seq
        telemetry.budget_snapshot_pause_seconds.observe(pause)
        log.info(
            "budget.snapshot_written",
            ledger_seq=self._since,
            parts=manifest.parts,
            pause_us=round(pause * 1_000_000),
            duration_ms=round((time.perf_counter() - began) * 1_000),
        )
        await self._shelf.prune()
