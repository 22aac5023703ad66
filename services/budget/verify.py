"""Checks a shard's whole ledger, for `sluicegate ledger verify` and the hourly self-check.

Needs the bus; the owner and ClickHouse for their checks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.budget.core.inspection import Check, Inspection, Sums, sums_of
from services.budget.core.limits import Catalogue
from services.budget.core.state import CounterKey, State
from services.budget.snapshots import Shelf, Snapshot, Unreadable
from shared.bus import Bus
from shared.bus.config import ConfigFollower
from shared.contracts.budget import BALANCES, Balance, Balances, BalancesAsked
from shared.contracts.ledger import LEDGER_COMMITTED, Commit, Entry
from shared.contracts.message import Decoder, UnknownVersion, encode
from shared.contracts.streams import LEDGER
from shared.directory import Directory
from shared.errors import Unavailable
from shared.service import end

REPLAY_BATCH = 2_000
PAGE_ENTRIES = 20_000
ROWS_SECONDS = 10.0  # how long analytics may be behind the ledger, in all
LOOK_SECONDS = 0.2
TRIES = 5
CONNECT_SECONDS = 2
QUERY_SECONDS = 60
_commit = Decoder(Commit)
_balances = Decoder(Balances)

Progress = Callable[[int, int], None]
Row = tuple[str, int, int, int]  # event_id; list, cost, charge in nano-USD
Rows = list[Row]


class Table(Protocol):
    """The view `usage` of analytics. Raises Unavailable."""

    async def between(self, shard: str, log_id: str, after: int, to: int) -> Rows:
        """The rows of these records of the ledger."""


class ClickHouse:
    """The real one."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def at(cls, url: str, user: str = "", password: str = "") -> "ClickHouse":
        """url: http://…/DATABASE. Raises Unavailable("analytics")."""
        try:
            client = await asyncio.to_thread(
                clickhouse_connect.get_client,
                dsn=url,
                interface="https" if url.startswith("https") else "http",
                username=user or None,
                password=password,
                autogenerate_session_id=False,
                connect_timeout=CONNECT_SECONDS,
                send_receive_timeout=QUERY_SECONDS,
            )
        except (ClickHouseError, OSError) as error:
            raise Unavailable("analytics") from error
        return cls(client)

    async def between(self, shard: str, log_id: str, after: int, to: int) -> Rows:
        sql = (
            "SELECT event_id, list_nano_usd, cost_nano_usd, charge_nano_usd FROM usage WHERE shard = {shard:String} "
            "AND log_id = {log_id:String} AND stream_seq > {after:UInt64} AND stream_seq <= {to:UInt64}"
        )
        parameters = {"shard": shard, "log_id": log_id, "after": after, "to": to}
        try:
            answer = await asyncio.to_thread(self._client.query, sql, parameters=parameters)
        except (ClickHouseError, OSError) as error:
            raise Unavailable("analytics") from error
        return [(str(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in answer.result_rows]


class Verifier:
    """Replays the ledger from its first record and compares on the way. table: None leaves the rows out."""

    def __init__(self, bus: Bus, shard: str, table: Table | None, progress: Progress) -> None:
        self._bus = bus
        self._shard = shard
        self._subject = LEDGER_COMMITTED.format(shard=shard)
        self._table = table
        self._progress = progress
        self._inspection = Inspection()
        self._seq = self._paged = 0
        self._log_id = ""
        self._page: dict[str, Sums] = {}
        self._patience = ROWS_SECONDS
        self._snapshots = Check(name="the newest snapshot is what the ledger leads to")
        self._rows = Check(name="each entry is one row of `usage`, with its amounts")
        if table is None:
            self._rows.state, self._rows.said = "left out", "no ClickHouse was named"
        self._balances = Check(name="the owner's balances are what the ledger leads to")
        self._snapshot: tuple[Snapshot, State] | None = None

    async def run(self) -> list[Check]:
        """Raises Unavailable when the broker cannot be read."""
        self._log_id = (await self._bus.end(LEDGER)).log_id
        await self._take_snapshot()
        await self._follow()
        await self._check_balances()
        await self._close_page()
        self._rows.said = self._rows.said or f"{self._inspection.entries:,} entries"
        return [*self._inspection.checks(), self._snapshots, self._balances, self._rows]

    async def _take_snapshot(self) -> None:
        shelf = Shelf(self._bus, self._shard)
        if not (found := await shelf.found()):
            self._snapshots.state, self._snapshots.said = "left out", "there is none yet"
            return
        try:
            self._snapshot = found[0], await shelf.read(found[0])
        except Unreadable as error:
            self._snapshots.fail(f"the one at record {found[0].manifest.at.seq} cannot be used: {error}")

    async def _follow(self) -> int:
        """Replay what there is by now; returns the last record's sequence."""
        last = await self._bus.last(LEDGER, self._subject)
        if last is None or last.seq <= self._seq:
            return self._seq
        follow = self._bus.follow(LEDGER, self._subject, self._seq, batch=REPLAY_BATCH)
        async with aclosing(follow) as lists:  # type: ignore[type-var]  # an async generator behind its interface
            async for messages in lists:
                for stored in messages:
                    self._feed(stored.seq, stored.data)
                if len(self._page) >= PAGE_ENTRIES:
                    await self._close_page()
                self._progress(self._seq, last.seq)
                if self._seq >= last.seq:
                    return self._seq
        return self._seq

    def _feed(self, seq: int, data: bytes) -> None:
        self._seq = seq
        try:
            commit = _commit.decode(data)
        except (msgspec.DecodeError, UnknownVersion) as error:
            self._inspection.unreadable(seq, data, str(error))
            return
        self._inspection.feed(seq, data, commit)
        for event in commit.events:
            if isinstance(event, Entry):
                self._page[event.event_id] = sums_of(event)
        if self._snapshot and seq == self._snapshot[0].manifest.at.seq:
            self._snapshots.said = f"at record {seq:,}"
            if self._snapshot[1] != self._inspection.state:
                self._snapshots.fail(f"the one at record {seq} differs from the replayed state")

    async def _close_page(self) -> None:
        """Compare the entries since the last page with their rows; wait a little for those that are on their way."""
        page, self._page = self._page, {}
        after, self._paged = self._paged, self._seq
        if self._table is None:
            return
        try:
            while True:
                rows = await self._table.between(self._shard, self._log_id, after, self._seq)
                if len(rows) >= len(page) or self._patience <= 0:
                    break
                self._patience -= LOOK_SECONDS
                await asyncio.sleep(LOOK_SECONDS)
        except Unavailable:
            self._table = None
            self._rows.state, self._rows.said = "left out", "ClickHouse does not answer"
        else:
            compare(page, rows, self._rows)

    async def _check_balances(self) -> None:
        """Between two looks at the ledger the owner may book: then its figure lies between theirs."""
        try:
            async with _directory(self._bus) as directory:
                for _ in range(TRIES):
                    catalogue = Catalogue(directory, self._shard, self._inspection.state.stays)
                    asked, before = self._seq, self._spent(catalogue)
                    items = await self._ask_balances()
                    if await self._follow() == asked:
                        break
                after = self._spent(catalogue)
        except Unavailable:
            self._balances.state, self._balances.said = "left out", "the owner does not answer"
            return
        self._balances.said = f"{len(items):,} budgets"
        for item in items:
            key = (item.budget_id, item.period_id)
            low, high = sorted((before.get(key, 0), after.get(key, 0)))
            if not low <= item.spent_nano_usd <= high:
                self._balances.fail(f"{key[0]} in {key[1]}: {item.spent_nano_usd} nano-USD, the ledger has {high}")

    def _spent(self, catalogue: Catalogue) -> dict[CounterKey, int]:
        """By each budget's own basis. A budget that CONFIG has no more is not in the owner's balances either."""
        return {
            key: counter.spent(limit.basis)
            for key, counter in self._inspection.state.counters.items()
            if (limit := catalogue.limit(key[0]))
        }

    async def _ask_balances(self) -> list[Balance]:
        subject, items = BALANCES.format(shard=self._shard), list[Balance]()
        while True:
            page = _balances.decode(await self._bus.request(subject, encode(BalancesAsked(offset=len(items)))))
            items += page.items
            if not page.items or len(items) >= page.total:
                return items


def compare(page: Mapping[str, Sums], rows: Iterable[Row], check: Check) -> None:
    """The same ids, each once, with the same amounts."""
    seen: set[str] = set()
    for event_id, *amounts in rows:
        if event_id in seen:
            check.fail(f"{event_id} has two rows")
        elif event_id not in page:
            check.fail(f"{event_id} has a row, but no entry there")
        elif tuple(amounts) != page[event_id]:
            check.fail(
                f"{event_id} is {page[event_id]} in the ledger, {tuple(amounts)} in its row (list, cost, charge)"
            )
        seen.add(event_id)
    for event_id in page.keys() - seen:
        check.fail(f"{event_id} has no row")


@asynccontextmanager
async def _directory(bus: Bus) -> AsyncIterator[Directory]:
    """What is governed, as it is now."""
    config = ConfigFollower(bus)
    running = asyncio.create_task(config.run())
    try:
        await config.caught_up()
        yield config.directory
    finally:
        await end(running)
