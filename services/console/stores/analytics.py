"""Reads the views of ClickHouse over HTTP, with values bound by the server."""

import asyncio
import datetime
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import clickhouse_connect
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.console.core.reports import Query
from services.console.settings import Settings
from shared.errors import Unavailable

log = structlog.get_logger()

THREADS = 4  # a report must not keep the list of requests waiting
CONNECT_SECONDS = 2

Row = dict[str, object]
T = TypeVar("T")


class Analytics:
    """Connects at the first question, since analytics may start after us; every failure of it is Unavailable."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._threads = ThreadPoolExecutor(THREADS, "analytics")
        self._connecting = asyncio.Lock()

    async def rows(self, query: Query) -> list[Row]:
        """The rows as plain values; instants are microseconds."""
        return await self._in_thread(lambda client: _rows(client, query))

    async def file(self, query: Query, form: str) -> bytes:
        """The answer in a format of ClickHouse's own: CSVWithNames, Parquet."""
        return await self._in_thread(lambda client: client.raw_query(query.sql, query.parameters, fmt=form))

    async def ping(self) -> bool:
        try:
            await self.rows(Query(sql="SELECT 1 AS one", parameters={}))
        except Unavailable:
            return False
        return True

    async def _in_thread(self, ask: Callable[[Client], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with self._connecting:
                if self._client is None:
                    self._client = await loop.run_in_executor(self._threads, self._connect)
            return await loop.run_in_executor(self._threads, ask, self._client)
        except (ClickHouseError, OSError) as error:
            log.warning("console.analytics_failed", error=str(error)[:500])
            raise Unavailable("analytics") from error

    async def close(self) -> None:
        """Waits for a query that runs: it ends by its own timeout."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
        await asyncio.to_thread(self._threads.shutdown)


def connector(settings: Settings) -> Callable[[], Client]:
    """Without a session, so that the client can be used from several threads."""

    def connect() -> Client:
        return clickhouse_connect.get_client(
            dsn=settings.clickhouse_url,
            username=settings.clickhouse_user or None,
            password=settings.clickhouse_password,
            database=settings.clickhouse_database,
            autogenerate_session_id=False,
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=settings.query_timeout_seconds,
            query_retries=1,
        )

    return connect


def _rows(client: Client, query: Query) -> list[Row]:
    answer = client.query(query.sql, parameters=query.parameters, tz_mode="aware")
    names: Sequence[str] = answer.column_names
    return [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in answer.result_rows]


def _plain(value: object) -> object:
    if isinstance(value, datetime.datetime):
        at = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return int(at.replace(microsecond=0).timestamp()) * 1_000_000 + value.microsecond
    if isinstance(value, bytes):
        return value.hex()
    return value
