"""The owner's loop: decide what has arrived, write one record, and only then answer. One record at a time.

What is decided while a record is being written waits for the next one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

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
from services.budget.handlers.steps import Asked, Between, Step
from services.budget.stores import Ledger
from shared import telemetry
from shared.clock import Clock
from shared.contracts.budget import Changed, Denied, Granted, Queued
from shared.contracts.ledger import Decided, Entry, LimitsApplied
from shared.contracts.message import Micros

log = structlog.get_logger()

TICK_SECONDS = 1.0
FULL_THRESHOLD_PPM = 1_000_000
_KINDS = ("settled", "recovered", "void", "expired", "correction")
_booked = {kind: telemetry.budget_entries.labels(kind) for kind in _KINDS}
_of_another_kind = telemetry.budget_entries.labels("other")  # the word of a newer edge
_EVENT_BYTES = 600  # what an event adds around what it repeats of its command
_granted = telemetry.budget_verdicts.labels("granted", "")
_queued = telemetry.budget_verdicts.labels("queued", "")
_MOST_LAPSED = 200  # grants that ended in one record
_AHEAD_MICROS = 50_000
_PACE_SECONDS = 0.004
_CROWD = 2  # answers of one record: who asks alone, however fast, never waits
_ENOUGH = 6
_LOOKED_BACK = 8
"""A record costs the broker, its disk and all who read the ledger as much as what is in it: in a crowd they are some time apart,
unless enough has gathered before. Where records are full as it is, none waits."""
_MOST_DECIDED = 1_000  # blocks set or lifted in one record: the broker takes 1 MiB, and a new month may lift them all


Announce = Callable[[list[Decided], list[Changed]], None]
TellLate = Callable[[list[Late]], None]


class Owner:
    """Single-threaded: commands are decided strictly one after the other, each on the state that the others left.

    Deciding does not wait for the disk: while a record is being written the next group is decided as it arrives, on a
    state that the ledger does not have yet; its answers wait for both records. So the more is asked, the more shares one
    write, and the processor works while the disk does.
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
        self._loop = asyncio.get_running_loop()
        self.state = state
        self.between_records = Between()
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
        self._wrote_at = 0.0
        self._answered = deque([0], maxlen=_LOOKED_BACK)  # questions that the last records answered
        self._wake = rulebook.changed
        self._arrived = asyncio.Event()
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
        future: asyncio.Future[Answer] = self._loop.create_future()
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
        self._arrived.set()
        self._wake.set()

    def tick(self) -> None:
        """Look whether periods have rolled, even when nobody asks."""
        self._wake.set()

    async def run(self) -> None:
        """For ever; ends with Overtaken when another owner lives."""
        while True:
            await self._wake.wait()
            async with self.between_records:
                self.durable = False  # and so it stays if deciding or writing fails: then we end
                await self._work()
                self.durable = True
            telemetry.budget_holds.set(len(self.state.holds))
            telemetry.budget_waiting.set(len(self._line.waiters))

    async def _work(self) -> None:
        """Decide and write until nothing is left, or somebody waits to see the state between two records."""
        ahead: Step | None = None
        while True:
            self._wake.clear()
            step = ahead or self._begin()
            take = self._take_while_young if ahead else self._take
            take(step)
            await self._gather(step)
            self._complete(step)
            ahead = await self._written(step)
            self._answer(step)
            self._tell(step)
            if ahead is None and (not self._queue or self.between_records.wanted):
                break
        if self._queue:
            self._wake.set()

    async def _gather(self, step: Step) -> None:
        """In a crowd, let others come along."""
        until = self._wrote_at + _PACE_SECONDS
        crowd = _CROWD <= max(self._answered) < _ENOUGH
        while crowd and len(step.answers) < _ENOUGH and not step.moved and not self.between_records.wanted:
            left = until - self._loop.time()
            if left <= 0:
                break
            self._arrived.clear()
            timer = self._loop.call_later(left, self._arrived.set)
            await self._arrived.wait()
            timer.cancel()
            self._take_while_young(step)
        self._wrote_at = self._loop.time()
        self._answered.append(len(step.answers))

    async def _written(self, step: Step) -> Step | None:
        """Return once the step is durable; with the next one, where something was decided meanwhile."""
        if step.events:
            # the record is made now: what is decided from here on must not be in it
            writing = asyncio.ensure_future(self._ledger.append(self.state, step.events, step.group.now))
        elif step.answers or step.group.late:
            writing = asyncio.ensure_future(self._ledger.confirm())
        else:
            return None
        writing.add_done_callback(lambda _: self._arrived.set())
        try:
            ahead = await self._ahead(writing)
        finally:
            writing.cancel()
        writing.result()
        return ahead

    async def _ahead(self, writing: "asyncio.Future[None]") -> Step | None:
        """Decide what arrives while a record is being written; not for long, or it would be decided by an old clock."""
        step: Step | None = None
        while not writing.done():
            await self._arrived.wait()
            self._arrived.clear()
            if writing.done() or not self._queue or self.between_records.wanted:
                continue
            if step is None:
                step = self._begin()
            self._take_while_young(step)
        return step

    def _take_while_young(self, step: Step) -> None:
        """Its clock stands still: a broker that is away for a minute must not make what is asked meanwhile a minute old."""
        if self.now() - step.group.now < _AHEAD_MICROS:
            self._take(step)
        else:
            self._wake.set()

    def _begin(self) -> Step:
        """What time and a change of the rules demand, before any command."""
        rules = self._rulebook.current()
        group = Group(self.state, self._line, rules, self._shard, self.now())
        turned = self._turn(group)
        turns.go_on(group)
        scopes = set(self._due_scopes(group))
        if self.state.config_rev != rules.catalogue.config_rev:
            group.apply(LimitsApplied(config_rev=rules.catalogue.config_rev, at=group.now))
            self._looked_at = None
        if self._looked_at is not rules.catalogue and (self.state.stays or self._looked_at is None):
            scopes = {*rules.catalogue.by_scope, *self.state.decisions}
            turns.weigh_again(group)
        self._looked_at = rules.catalogue
        return Step(group, self._group_bytes, scopes.union(turned))

    def _take(self, step: Step) -> None:
        """Decide what is queued, as far as the record has room and the rules are still the same."""
        if self._rulebook.current() is not step.group.rules:
            self._wake.set()
            return
        while self._queue and not step.moved and (step.room > self._queue[0].bytes or not step.events):
            self._decide(step, self._queue.popleft())
        if len(self._queue) <= 1_000:
            self._room.set()

    def _decide(self, step: Step, asked: Asked) -> None:
        before = len(step.events)
        answer = decide(step.group, asked.command)
        made = step.events[before:]
        for event in made:
            step.spent.update(touched(event))
            step.room -= record_bytes(event)
        step.room -= asked.bytes + _EVENT_BYTES * max(0, len(made) - 1)
        if asked.answer is not None:
            step.answers.append((asked.answer, answer))
        if made and isinstance(asked.command, Depart | Arrive):
            self._moved(step)

    def _complete(self, step: Step) -> None:
        """Nothing more is decided with it: look what became of the scopes that it touched."""
        rules = step.group.rules
        step.looking.update(limit.block_scope for limit in _limits(rules, step.spent))
        self._undecided.update(dict.fromkeys(step.looking))
        if not step.moved:
            self._decide_blocks(step)

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

    def _decide_blocks(self, step: Step) -> None:
        """As many as a record takes; the next one goes on."""
        rules, now = step.group.rules, step.group.now
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

    def _tell(self, step: Step) -> None:
        rules, now = step.group.rules, step.group.now
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
    """The metrics of all; of the log, only what somebody should look at."""
    usage, cost = entry.usage.usage, entry.usage.cost_nano_usd
    _booked.get(entry.kind, _of_another_kind).inc()
    (telemetry.budget_booked_nano_usd if cost >= 0 else telemetry.budget_returned_nano_usd).inc(abs(cost))
    if entry.overrun_nano_usd:
        telemetry.budget_overruns.inc()
        log.warning("budget.overrun", rid=usage.rid, overrun_nano_usd=entry.overrun_nano_usd, model=usage.wire_model)
    if entry.kind in ("expired", "correction"):
        log.info("budget.entry_booked", event_id=entry.event_id, kind=entry.kind, nano_usd=entry.usage.cost_nano_usd)
