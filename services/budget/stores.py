"""The outside world: the ledger that one owner may write, and what else is kept on the bus."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing

import nats.errors
import nats.js.errors
import structlog
from ulid import ULID

from services.budget.core.state import State
from shared import telemetry
from shared.bus import Bus, Stored
from shared.contracts.budget import Decision
from shared.contracts.edge import USAGE_RECORDED
from shared.contracts.ledger import LEDGER_COMMITTED, Commit, EpochBegan, LedgerEvent
from shared.contracts.message import Decoder, Micros, UnknownVersion, encode
from shared.contracts.pricing import USAGE_PRICED, UsagePriced
from shared.contracts.streams import DECISIONS, EDGES, LEDGER, PRICED, USAGE, Position
from shared.errors import Overtaken, Unavailable

log = structlog.get_logger()

NO_RECORD = bytes(32)  # digest of what came before the first record
RETRY_SECONDS = 0.1
REPLAY_BATCH = 2_000
END_OF_TIME = 1 << 62
PROVED_SECONDS = 0.25  # much less than a lease: nobody who stands by can have taken over in between
_commit = Decoder(Commit)
_priced = Decoder(UsagePriced)
_decision = Decoder(Decision)


class LogUnfit(OSError):
    """A log is not the one that the ledger was written beside, or is broken: a person must look. Ends the start in one line."""


class Ledger:
    """The shard's log. Only the process that wrote the last record can write the next: everyone else is Overtaken.

    seq: of the last record in LEDGER, 0 before the first. digest: of its bytes. priced: how far it says PRICED is applied.
    """

    def __init__(self, bus: Bus, shard: str) -> None:
        self._bus = bus
        self._shard = shard
        self._subject = LEDGER_COMMITTED.format(shard=shard)
        # another owner may reach the same sequence with the same epoch: its record must not pass for ours
        self._incarnation = str(ULID())
        self.log_id = ""
        self.seq = 0
        self.digest = NO_RECORD
        self.priced = Position()
        self._proved_at = 0.0

    @property
    def position(self) -> Position:
        """Of the last record."""
        return Position(log_id=self.log_id, seq=self.seq)

    def stand(self, at: Position, digest: bytes, priced: Position) -> None:
        """Go on after this record: a snapshot holds it and all before."""
        self.log_id, self.seq, self.digest, self.priced = at.log_id, at.seq, digest, priced

    async def replay(self, state: State) -> int:
        """Fold into `state` what comes after where we stand; returns how many records that was.

        Raises LogUnfit where a record's digest of its predecessor does not hold.
        """
        self.log_id = (await self._bus.end(LEDGER)).log_id
        last = await self._bus.last(LEDGER, self._subject)
        count = 0
        if last is None or last.seq <= self.seq:
            return count
        async for stored in self._records(self.seq, last.seq):
            self._fold(state, stored)
            count += 1
        return count

    async def keep_up(self, state: State) -> None:
        """Fold whatever another owner writes, for ever: a standby that has done so takes over at once."""
        async for stored in self._records(self.seq, END_OF_TIME):
            self._fold(state, stored)

    def _fold(self, state: State, stored: Stored) -> None:
        commit = _commit.decode(stored.data)
        if commit.digest != self.digest:
            raise LogUnfit(f"ledger record {stored.seq} does not follow the one before it: its digest differs")
        state.fold(commit)
        self.seq, self.digest, self.priced = stored.seq, hashlib.sha256(stored.data).digest(), commit.priced

    async def _records(self, after: int, up_to: int) -> AsyncIterator[Stored]:
        async with aclosing(self._bus.follow(LEDGER, self._subject, after, batch=REPLAY_BATCH)) as lists:  # type: ignore[type-var]  # an async generator behind its interface
            async for messages in lists:
                for stored in messages:
                    yield stored
                if messages[-1].seq >= up_to:
                    return

    async def begin(self, state: State, priced: Position, now: Micros) -> None:
        """Take the shard: from here on the owner before us can write no more."""
        began = EpochBegan(owner_epoch=state.owner_epoch + 1, at=now)
        state.apply(began)
        state.priced = priced
        await self.append(state, [began], now)

    def append(self, state: State, events: Sequence[LedgerEvent], now: Micros) -> Awaitable[None]:
        """Store one record durably, however long the broker is away. Raises Overtaken when another owner lives.

        It is made before this returns, from the state as it is then; the state may go on while the record is awaited.
        """
        record = encode(
            Commit(
                shard=self._shard,
                owner_epoch=state.owner_epoch,
                at=now,
                digest=self.digest,
                priced=state.priced,
                events=tuple(events),
            )
        )
        return self._write(record, state.priced)

    async def _write(self, record: bytes, priced: Position) -> None:
        began, asked = time.perf_counter(), time.monotonic()
        self.seq = await self._store(record)
        self._proved_at = asked
        self.digest, self.priced = hashlib.sha256(record).digest(), priced
        telemetry.budget_commits.inc()
        telemetry.budget_commit_seconds.observe(time.perf_counter() - began)

    async def confirm(self) -> None:
        """Before an answer that no record carries: whoever was frozen for a while must look whether the shard is still its own.

        Raises Overtaken when another owner has written. Costs nothing when a record was stored a moment ago.
        """
        while (asked := time.monotonic()) - self._proved_at > PROVED_SECONDS:
            try:
                last = await self._bus.last(LEDGER, self._subject)
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if last is None or last.seq != self.seq:
                raise Overtaken(self._subject)
            self._proved_at = asked

    async def _store(self, record: bytes) -> int:
        """The same bytes, id and expected sequence until the broker says what became of them."""
        msg_id = f"{self._incarnation}:{self.seq}"
        while True:
            try:
                return await self._bus.append(self._subject, record, msg_id=msg_id, expected_last_seq=self.seq)
            except Unavailable:
                telemetry.budget_commit_retries.inc()
                log.warning("budget.commit_retried", after_seq=self.seq)
                await asyncio.sleep(RETRY_SECONDS)
            except Overtaken:
                if stored := await self._ours(record):
                    return stored
                raise

    async def _ours(self, record: bytes) -> int:
        """Sequence of the last record if it is this one, stored by an attempt that looked lost; else 0."""
        while True:
            try:
                last = await self._bus.last(LEDGER, self._subject)
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return last.seq if last and last.data == record else 0


async def check_sync(bus: Bus, allow_unsynced: bool) -> None:
    """Raises LogUnfit when the broker would lose what it has acknowledged, unless that is allowed."""
    unsynced = await bus.sync_always() is False
    telemetry.budget_broker_unsynced.set(unsynced)
    if unsynced:
        if not allow_unsynced:
            raise LogUnfit(
                "the broker acknowledges before it writes to disk, so a power cut loses money; set jetstream "
                "sync_interval: always, or accept it with BUDGET_ALLOW_UNSYNCED_BROKER=true"
            )
        log.warning("budget.broker_not_synced")


async def priced_after(bus: Bus, state: State) -> Position:
    """Where to go on in PRICED. Raises LogUnfit when that log was made anew or has lost records we have applied."""
    end = await bus.end(PRICED)
    if state.priced.log_id and state.priced.log_id != end.log_id:
        raise LogUnfit(
            f"PRICED was made anew ({end.log_id}) since the ledger was written ({state.priced.log_id}); "
            "restore it, or begin with an empty LEDGER"
        )
    if state.priced.seq > end.seq:
        raise LogUnfit(f"PRICED ends at {end.seq}, but the ledger has applied {state.priced.seq} records of it")
    return Position(log_id=end.log_id, seq=state.priced.seq)


async def closings_end(bus: Bus, shard: str) -> tuple[int, tuple[int, int]]:
    """Last record of USAGE; last of PRICED, and the record of USAGE that it prices. 0: there is none. Raises Unavailable."""
    priced = await bus.last(PRICED, USAGE_PRICED.format(shard=shard))
    usage = await bus.last(USAGE, USAGE_RECORDED.format(shard=shard))
    its_usage = _priced.decode_all(priced.data)[-1].usage_at.seq if priced else 0
    return usage.seq if usage else 0, (priced.seq if priced else 0, its_usage)


async def passing_under_way(bus: Bus, shard: str) -> bool:
    """As closings_under_way, of another shard, which passes on to us what concerns organisations that have left it."""
    last = await bus.last(LEDGER, LEDGER_COMMITTED.format(shard=shard))
    return last is not None and await _under_way(bus, shard, _commit.decode(last.data).priced)


async def closings_under_way(bus: Bus, shard: str, state: State) -> bool:
    """Whether usage was recorded that has not reached the ledger yet: then a silent attempt may have ended in it."""
    return await _under_way(bus, shard, state.priced)


async def _under_way(bus: Bus, shard: str, applied: Position) -> bool:
    usage = await bus.last(USAGE, USAGE_RECORDED.format(shard=shard))
    if usage is None:
        return False
    priced = await bus.last(PRICED, USAGE_PRICED.format(shard=shard))
    if priced is None or priced.seq > applied.seq:
        return True
    return usage.seq > _priced.decode_all(priced.data)[-1].usage_at.seq


async def written_shards(bus: Bus) -> list[str]:
    """Shards that LEDGER has records of."""
    js, every = bus.client.jetstream(timeout=10), bus.names.subject(LEDGER_COMMITTED.format(shard="*"))
    try:
        info = await js.stream_info(bus.names.stream(LEDGER), subjects_filter=every)
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable("bus") from error
    return sorted(name.rpartition(".")[2] for name in info.state.subjects or ())


async def registered_edges(bus: Bus) -> list[str]:
    """Edges that have written themselves into EDGES."""
    return list(await bus.values(EDGES))


def decision_key(scope: str) -> str:
    """A scope as a key of DECISIONS, which may not have colons."""
    return scope.replace(":", ".")


async def keep_decision(bus: Bus, decision: Decision) -> None:
    """The last value per scope, for edges that connect later. A newer owner's is left alone: we may have been frozen."""
    bucket, key = await bus.bucket(DECISIONS), decision_key(decision.scope)
    try:
        try:
            entry = await bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            await bucket.create(key, encode(decision))
            return
        if entry.value:
            known = _decision.decode(entry.value)
            if _age(known) >= _age(decision):
                return
        await bucket.update(key, encode(decision), last=entry.revision)
    except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable("bus") from error


def _age(decision: Decision) -> tuple[int, int, int]:
    return decision.move, decision.owner_epoch, decision.version


async def kept_decisions(bus: Bus) -> dict[str, Decision]:
    """What edges that connect now are told, by scope."""
    try:
        found = [_decision.decode(value) for value in (await bus.values(DECISIONS)).values()]
    except UnknownVersion as error:
        raise LogUnfit(f"DECISIONS was written by a newer release: {error}") from error
    return {decision.scope: decision for decision in found}
