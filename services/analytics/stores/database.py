"""The writer's connection to ClickHouse, a server or the engine in this process: the same verbs over both."""

import asyncio
import contextlib
import fcntl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import clickhouse_connect
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.analytics.core.tables import Table
from services.analytics.settings import Settings
from shared.errors import Unavailable

log = structlog.get_logger()

S = TypeVar("S")
T = TypeVar("T")

INSERT_SETTINGS = {
    "async_insert": 0,  # on by default in newer servers; it would answer before the rows are in a part
    "insert_deduplicate": 1,
    "max_partitions_per_insert_block": 1,  # an insert into two partitions would not be atomic: refuse it
}

ENGINE_OPTIONS = {
    "mark_cache_size": 64 << 20,
    "background_schedule_pool_size": 8,  # with the defaults the engine has 100 threads, with these 40
    "background_common_pool_size": 2,
    "background_fetches_pool_size": 1,
    "background_move_pool_size": 1,
}
"""Of the engine in this process, which shares a machine with everything else."""


class Database:
    """Every failure of ClickHouse is Unavailable("clickhouse"); calls run one at a time in a thread of their own."""

    def __init__(self, client: Client, thread: ThreadPoolExecutor, settings: Settings) -> None:
        self._client = client
        self._thread = thread
        self.settings = settings

    async def command(self, sql: str) -> None:
        await self._run(lambda: self._client.command(sql))

    async def rows(self, sql: str, parameters: dict[str, object] | None = None) -> Sequence[Sequence[object]]:
        return (await self._run(lambda: self._client.query(sql, parameters=parameters))).result_rows

    async def insert(self, table: Table[S], sources: Sequence[S], token: str) -> None:
        """All rows or none. Repeating the same rows with the same token changes nothing."""

        def insert() -> None:
            self._client.insert(
                table.name,
                table.pivot(sources),
                column_names=[column.name for column in table.columns],
                column_type_names=[column.type for column in table.columns],
                column_oriented=True,
                database=self.settings.database,
                settings=INSERT_SETTINGS | {"insert_deduplication_token": token},
            )

        await self._run(insert)

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except (ClickHouseError, OSError) as error:
            log.warning("clickhouse.failed", reason=str(error)[:500])
            raise Unavailable("clickhouse") from error


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Connect, and make the database when it is missing. Raises Unavailable, or OSError for a data_dir we cannot use."""
    connect = _connect if settings.clickhouse_url else _embed
    with ThreadPoolExecutor(1, thread_name_prefix="clickhouse") as thread, _claimed(settings):
        loop = asyncio.get_running_loop()
        try:
            client = await loop.run_in_executor(thread, connect, settings)
        except ClickHouseError as error:
            raise Unavailable(f"clickhouse ({str(error).splitlines()[0][:300]})") from error
        try:
            yield Database(client, thread, settings)
        finally:
            await loop.run_in_executor(thread, client.close)


@contextlib.contextmanager
def _claimed(settings: Settings) -> Iterator[None]:
    """Keep a second process off data_dir; the engine would too, but only after its start, and not in one line."""
    if settings.clickhouse_url:
        yield
        return
    path = Path(engine_path(settings))
    path.mkdir(parents=True, exist_ok=True)
    with (path / "claimed").open("a") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"{path} is in use by another process") from error
        yield


def engine_path(settings: Settings) -> str:
    """One spelling of the directory: the engine compares them as text."""
    return str(Path(settings.data_dir).resolve())


def _connect(settings: Settings) -> Client:
    return clickhouse_connect.get_client(
        dsn=settings.clickhouse_url,
        interface="https" if settings.clickhouse_url.startswith("https") else "http",
        username=settings.clickhouse_user or None,
        password=settings.clickhouse_password,
        autogenerate_session_id=False,
        query_retries=0,  # an insert is repeated by us, with its token
    )


def _embed(settings: Settings) -> Client:
    """The engine reads config.xml and users.xml from the working directory, so it starts in its own.

    The driver hands rows to the engine in temporary files. They stay in data_dir too, and what a crash left is removed.
    The engine's database `default` shows the file system as tables (default.`/etc/passwd`); an empty one takes its place.
    """
    path = engine_path(settings)
    inserts = Path(path) / "inserts"
    inserts.mkdir(exist_ok=True)
    for left in inserts.iterdir():
        left.unlink()
    tempfile.tempdir = str(inserts)
    with contextlib.chdir(path):
        client = clickhouse_connect.get_client(interface="chdb", path=path, chdb_options=ENGINE_OPTIONS)
    for statement in ("DROP DATABASE IF EXISTS default", "CREATE DATABASE default ENGINE = Memory"):
        client.command(statement)
    return client
