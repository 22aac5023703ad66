"""The stage of one simulation: its clock, its dice, who is on it, who is killed when, and what was seen."""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from shared.contracts.budget import Granted
from shared.errors import Overtaken
from tests.simulation import company
from tests.simulation.broker import Broker, Port, Stored
from tests.simulation.clock import EPOCH, MICROS, VirtualLoop
from tests.simulation.disk import Disk
from tests.simulation.provider import Provider

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle
    from tests.simulation.owner import Owner

SHARD = "0"
STARTS = (0, 3_570, 50_370)  # seconds: in the middle of an hour; shortly before its end; shortly before midnight
MUTANTS = (
    *("no_message_ids", "no_fence", "ack_is_progress", "answered_before_commit", "end_not_synced", "record_made_late"),
    *("lease_not_charged", "lease_drawn_twice", "lease_returned_untold", "lease_freed_early"),
)
RARE_MUTANTS = (
    "published_before_synced",
)  # needs a lost publish and a power cut within one sync: too rare for the suite


class Table(msgspec.Struct):
    """Rows as a database has them. place: the last record of the ledger that is in them."""

    rows: dict[str, int] = {}
    place: int = 0
    inserted: int = 0


class World:
    """hostile: while true, the network loses and processes are killed. loss: how often."""

    def __init__(self, seed: int, mutant: str = "") -> None:
        self.rng = random.Random(seed)
        self.mutant = mutant
        self.loop = VirtualLoop(self.rng.choice(STARTS))
        self.hostile = True
        self.loss = self.rng.choice((0.01, 0.03, 0.08))
        self.deaths = self.rng.choice((0.000_5, 0.002, 0.005))
        self.config_rev = self.config_rev_heard = 1
        self.broker = Broker(self)
        self.provider = Provider(self)
        self.disks: dict[str, Disk] = {}
        self.rows = Table()
        self.released: dict[str, int] = {}
        self.trace: list[str] = []
        self.failures: list[str] = []
        self.failed = asyncio.Event()
        self.seen: Counter[str] = Counter()
        self.oracle: Oracle

    def now(self) -> int:
        return self.loop.micros()

    def note(self, fact: str) -> None:
        self.trace.append(f"{(self.now() - EPOCH) / MICROS:12.6f}  {fact}")

    def fail(self, why: str) -> None:
        self.note(f"FAILED: {why}")
        self.failures.append(why)
        self.failed.set()

    def stored(self, stream: str, stored: Stored) -> None:
        """Something is durable now."""
        self.note(f"broker: {stream} {stored.seq} {stored.msg_id}")
        self.oracle.stored(stream, stored)

    def committed(self, owner: "Owner") -> None:
        self.oracle.committed(owner)

    def check_sent(self, rid: str, granted: Granted | None, key: str) -> None:
        """The provider is about to hear of this attempt."""
        if granted is None and company.is_hard(key):
            self.fail(f"{rid} is sent without a grant")
        elif granted is not None and granted.lease:
            self.oracle.drawn(rid, granted)
        elif granted is not None and rid not in self.oracle.held:
            self.fail(f"{rid} is sent, but its grant is not durable")
        elif rid in self.oracle.withdrawn or rid in self.oracle.entries:
            self.fail(f"{rid} is sent after it was withdrawn or closed")
        self.seen["sent governed" if granted else "sent ungoverned"] += 1


class Process:
    """Runs until it is killed or overtaken; then nothing it still wanted to do happens."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.port = Port(self, world.broker)
        self._tasks: dict[asyncio.Task[Any], None] = {}

    async def run(self) -> None:
        raise NotImplementedError

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = self.world.loop.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Overtaken):
            self.kill("overtaken")
            return
        at = error.__traceback__
        while at and at.tb_next:
            at = at.tb_next
        where = f"{at.tb_frame.f_code.co_qualname}:{at.tb_lineno}" if at else ""
        self.world.fail(f"{self.name}: {error!r} in {where}")

    def kill(self, how: str) -> None:
        """As by SIGKILL: between two steps, without a word."""
        if not self.alive:
            return
        self.alive = False
        self.world.note(f"{self.name}: {how}")
        for task in self._tasks:
            task.cancel()
        self.world.provider.hung_up(self)

    async def here(self, what: str) -> None:
        """A place where a process may die."""
        if self.world.hostile and self.alive and self.world.rng.random() < self.world.deaths:
            self.world.seen["killed at a step"] += 1
            self.world.loop.call_soon(self.kill, f"killed: {what}")
            await asyncio.Event().wait()
