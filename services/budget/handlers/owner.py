"""The owner's loop: decide what has arrived, write one record, and only then answer. One record at a time."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec
import structlog

from services.budget.core import blocks, turns
from services.budget.core.admission import Rules
from services.budget.core.group import Group, Late
from services.budget.core.limits import Catalogue, Limit
from services.budget.core.line import Line
from services.budget.core.moves import Arrive, Depart
from services.budget.core.rate_limits import record_bytes
from services.budget.core.state import State
from services.budget.core.step import Answer, Command, decide, touched
from services.budget.handlers.rulebook import Rulebook
from services.budget.stores import Ledger
from shared import telemetry
from shared.clock import Clock
from shared.contracts.budget import Changed, Denied, Granted, Queued
from shared.contracts.ledger import Decided, Entry, LedgerEvent, LimitsApplied
from shared.contracts.message import Micros

log = structlog.get_logger()

TICK_SECONDS = 1.0
FULL_THRESHOLD_PPM = 1_000_000
_EVENT_BYTES = 600  # what an event adds around what it repeats of its command
_granted = telemetry.budget_verdicts.labels("granted", "")
_queued = telemetry.budget_verdicts.labels("queued", "")
_MOST_LAPSED = 200  # grants that ended in one record
_MOST_DECIDED = 1_000  # blocks set or lifted in one record: the broker takes 1 MiB, and a new month may lift them all


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A command that waits its turn. bytes: about what its event will take in the record."""

    command: Command
    answer: "asyncio.Future[Answer] | None"
    bytes: int


class Step(msgspec.Struct):
    """What one group of commands leads to, and who is told once it is durable."""

    group: Group
    answers: list[tuple["asyncio.Future[Answer]", Answer]] = []
    spent: set[str] = set()
    moved: bool = False

    @property
    def events(self) -> list[LedgerEvent]:
        return self.group.events


Announce = Callable[[list[Decided], list[Changed]], None]
TellLate = Callable[[list[Late]], None]


class Owner:
    """Single-threaded: commands are decided strictly one after the other, each on the state that the others left.

    While a record is being written the next group gathers; so the more is asked, the more shares one write.
    announce: told what changed for edges and consoles, after it is durable. tell_late: answers to who was told to wait.
    between_records: whoever has it sees a state with nothing on its way to the ledger; durable: else something was.
    """

    def __init__(
        self,
        ledger: Ledger,
        state: State,
        rulebook: Rulebook,
        announce: Announce,
        tell_late: TellLate,
        clock: Clock,
        shard: str,
        group: int,
    ) -> None:
        self.state = state
        self.between_records = asyncio.Lock()
        self.durable = True
        self._ledger = ledger
        self._rulebook = rulebook
        self._announce = announce
        self._tell_late = tell_late
        self._line = Line()
        self._clock = clock
        self._shard = shard
        self._group_bytes = group
        self._queue: deque[Asked] = deque()
        self._wake = rulebook.changed
        self._room = asyncio.Event()
        self._room.set()
        self._alerts = blocks.Alerts()
        self._undecided: dict[str, None] = {}  # scopes to look at, in order
        self._last_tick = self._latest = 0
        self._looked_at: Catalogue | None = None  # whose budgets were all looked at
        self._turned = (-1, 0)  # of which revision's agenda everything is done, up to when

    def now(self) -> Micros:
        """The owner's clock, which never runs backwards: periods and thresholds would flicker."""
        self._latest = max(self._latest, self._clock())
        return self._latest

    def ask(self, command: Command, size: int) -> "asyncio.Future[Answer]":
        """Done once the answer is durable."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._put(Asked(command, future, size + _EVENT_BYTES))
        return future

    def tell(self, command: Command, size: int = 0) -> None:
        """Without an answer."""
        self._put(Asked(command, None, size + _EVENT_BYTES))

    async def room(self) -> None:
        """Return when not too many are queued already."""
        await self._room.wait()

    def _put(self, asked: Asked) -> None:
        self._queue.append(asked)
        if len(self._queue) > 1_000:
            self._room.clear()
        self._wake.set()

    def tick(self) -> None:
        """Look whether periods have rolled, even when nobody asks."""
        self._wake.set()

    async def run(self) -> None:
        """For ever; ends with Overtaken when another owner lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while True:
                async with self.between_records:
                    rules, now = self._rulebook.current(), self.now()
                    self.durable = False  # and so it stays if deciding or writing fails: then we end
                    step = self._decide(rules, now)
                    if step.events:
                        await self._ledger.append(self.state, step.events, now)
                    elif step.answers or step.group.late:
                        await self._ledger.confirm()
                    self.durable = True
                self._answer(step)
                self._tell(rules, step, now)
                if not self._queue:
                    break
            telemetry.budget_holds.set(len(self.state.holds))
            telemetry.budget_waiting.set(len(self._line.waiters))

    def _decide(self, rules: Rules, now: Micros) -> Step:
        group = Group(self.state, self._line, rules, self._shard, now)
        step = Step(group)
        turned = self._turn(group)
        turns.go_on(group)
        scopes = set(self._due_scopes(group))
        if self.state.config_rev != rules.catalogue.config_rev:
            group.apply(LimitsApplied(config_rev=rules.catalogue.config_rev, at=now))
            self._looked_at = None
        if self._looked_at is not rules.catalogue and (self.state.stays or self._looked_at is None):
            scopes = {*rules.catalogue.by_scope, *self.state.decisions}
            turns.weigh_again(group)
        self._looked_at = rules.catalogue
        scopes.update(turned)
        room = self._group_bytes
        while self._queue and (room > self._queue[0].bytes or not step.events):
            asked = self._queue.popleft()
            room -= asked.bytes
            before = len(step.events)
            answer = decide(group, asked.command)
            moved = isinstance(asked.command, Depart | Arrive) and len(step.events) > before
            for event in step.events[before:]:
                step.spent.update(touched(event))
                room -= record_bytes(event)
            room -= _EVENT_BYTES * max(0, len(step.events) - before - 1)
            if asked.answer is not None:
                step.answers.append((asked.answer, answer))
            if moved:
                self._moved(step)
                break
        if len(self._queue) <= 1_000:
            self._room.set()
        scopes.update(limit.block_scope for limit in _limits(rules, step.spent))
        self._undecided.update(dict.fromkeys(scopes))
        if not step.moved:
            self._decide_blocks(step, rules, now)
        return step

    def _moved(self, step: Step) -> None:
        """Others live here from now on: the next group has rules of its own."""
        step.moved, self._looked_at, self._turned = True, None, (-1, 0)
        self._rulebook.moved()
        self._wake.set()

    def _turn(self, group: Group) -> list[str]:
        """Grants that have ended, before anything is decided by them. Returns scopes that time alone may have spent."""
        catalogue, (rev, since) = group.rules.catalogue, self._turned
        limits = _limits(group.rules, catalogue.agenda.between(since if rev == catalogue.config_rev else 0, group.now))
        for lapsed in islice(blocks.lapses(self.state, limits, group.now), _MOST_LAPSED):
            group.apply(lapsed)
        if len(group.events) < _MOST_LAPSED:
            self._turned = (catalogue.config_rev, group.now)
        else:
            self._wake.set()  # the next record takes more; until then they count by what is used of them now
        return [limit.block_scope for limit in limits]

    def _decide_blocks(self, step: Step, rules: Rules, now: Micros) -> None:
        """As many as a record takes; the next one goes on."""
        before = len(step.events)
        while self._undecided and len(step.events) - before < _MOST_DECIDED:
            scope = next(iter(self._undecided))
            del self._undecided[scope]
            for decided in blocks.due(self.state, rules, (scope,), now):
                step.group.apply(decided)
        if self._undecided or self._line.unserved:
            self._wake.set()

    def _due_scopes(self, group: Group) -> list[str]:
        """Once a second: who has waited long enough, and blocks that a new period may lift."""
        if group.now - self._last_tick < TICK_SECONDS * 1_000_000:
            return []
        self._last_tick = group.now
        turns.look_again(group)
        return blocks.blocked(self.state)

    def _answer(self, step: Step) -> None:
        for future, answer in step.answers:
            if not future.done():  # its caller may have gone
                future.set_result(answer)
            if isinstance(answer, Denied):
                telemetry.budget_verdicts.labels("denied", answer.reason).inc()
            elif isinstance(answer, Granted):
                _granted.inc()
            elif isinstance(answer, Queued):
                _queued.inc()
        if step.group.late:
            self._tell_late(step.group.late)

    def _tell(self, rules: Rules, step: Step, now: Micros) -> None:
        decided = [event for event in step.events if isinstance(event, Decided)]
        limits = _limits(rules, step.spent)
        changed = [found for limit in limits if (found := self._alerts.crossed(self.state, limit, now))]
        for event in decided:
            log.info("budget.decided", scope=event.scope, state=event.state, budget_id=event.budget_id)
            if limit := rules.catalogue.limit(event.budget_id):
                threshold = FULL_THRESHOLD_PPM if event.state == "block" else 0
                changed.append(Changed(balance=blocks.balance(self.state, limit, now), threshold_ppm=threshold, at=now))
        for entry in step.events:
            if isinstance(entry, Entry):
                _log_entry(entry)
        if decided or changed:
            self._announce(decided, changed)


def _limits(rules: Rules, budget_ids: Iterable[str]) -> list[Limit]:
    return [limit for budget_id in budget_ids if (limit := rules.catalogue.limit(budget_id))]


def _log_entry(entry: Entry) -> None:
    """Only what somebody should look at."""
    usage = entry.usage.usage
    if entry.overrun_nano_usd:
        telemetry.budget_overruns.inc()
        log.warning("budget.overrun", rid=usage.rid, overrun_nano_usd=entry.overrun_nano_usd, model=usage.wire_model)
    if entry.kind in ("expired", "correction"):
        log.info("budget.entry_booked", event_id=entry.event_id, kind=entry.kind, nano_usd=entry.usage.cost_nano_usd)
