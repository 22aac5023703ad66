"""Runs readers' queries on the embedded engine, apart from the writer.

The engine takes any number of handles, runs them side by side and lets go of the interpreter while it works. Each query gets a
handle of its own (0.3 ms), so that no session state outlives it.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec

from services.analytics.core.answers import Limits, QueryFailed, output_format, settings_of
from services.analytics.core.guard import Guard
from services.analytics.settings import Settings
from services.analytics.stores.database import engine_path

QUEUE = 64  # queries that may wait for a place
FORMAT_QUERY = "SELECT formatQuerySingleLine({q:String})"
NAMES = (
    "SELECT DISTINCT name FROM (SELECT name FROM system.functions UNION ALL SELECT name FROM system.data_type_families) "
    "WHERE lower(name) NOT IN ('input')"
)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A query as it came. settings: those of the URL; parameters: their `param_` names without it, values escaped as TSV."""

    sql: str
    default_format: str
    database: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """body: in `format`."""

    body: bytes
    format: str
    read_rows: int
    read_bytes: int
    elapsed_ns: int


class Reader:
    """Answers questions, at most `query_concurrency` at a time. Failures are QueryFailed."""

    def __init__(self, connect: Callable[[], Any], settings: Settings, threads: ThreadPoolExecutor) -> None:
        self._connect = connect
        self._settings = settings
        self._threads = threads
        self._pending = 0
        self._limits = Limits(
            max_execution_time=settings.query_max_seconds,
            max_memory_usage=settings.query_max_memory_bytes,
            max_result_bytes=settings.query_max_result_bytes,
        )
        with contextlib.closing(connect()) as handle:
            names = handle.query(NAMES, "JSONCompactColumns").bytes()
            self.version: str = handle.query("SELECT version()", "TSVRaw").bytes().decode().strip()
        self._guard = Guard(frozenset(json.loads(names)[0]))

    async def ask(self, question: Question) -> Answer:
        if self._pending >= QUEUE:
            raise QueryFailed.of(202, "Too many simultaneous queries", "TOO_MANY_SIMULTANEOUS_QUERIES")
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)
        finally:
            self._pending -= 1

    def _answer(self, question: Question) -> Answer:
        settings = settings_of(question.settings, self._limits)
        try:
            with contextlib.closing(self._connect()) as handle:
                return self._run(handle, question, settings)
        except RuntimeError as error:  # what the engine raises, chdb.ChdbError included
            raise QueryFailed.from_engine(str(error)) from error

    def _run(self, handle: Any, question: Question, settings: Mapping[str, str]) -> Answer:
        started = time.perf_counter_ns()
        database = question.database if question.database not in ("", "default") else self._settings.database
        canonical = handle.query(FORMAT_QUERY, "TSVRaw", params={"q": _escaped(question.sql)}).bytes().decode().strip()
        if refused := self._guard.refusal(canonical):
            raise QueryFailed.of(refused.code, refused.message, "ACCESS_DENIED" if refused.code == 497 else "READONLY")
        handle.query(f"USE {_quoted(database, '`')}")
        chosen = ", ".join(f"{name} = {_quoted(value, chr(39))}" for name, value in settings.items())
        handle.query(f"SET {chosen}, readonly = 1")  # readonly cannot be undone on this handle
        result = handle.query(canonical, question.default_format, params=dict(question.parameters) or None)
        return Answer(
            body=result.bytes() or b"",
            format=output_format(canonical, question.default_format),
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            elapsed_ns=time.perf_counter_ns() - started,
        )


def _escaped(text: str) -> str:
    """As a value of a query parameter, which the engine reads as TSV."""
    return (
        text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")
    )


def _quoted(text: str, quote: str) -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


@asynccontextmanager
async def open_reader(settings: Settings) -> AsyncIterator[Reader]:
    """On the engine that `open_database` started in this process."""
    import chdb  # noqa: PLC0415  # importing it starts an engine, which a server's client must not pay for

    threads = ThreadPoolExecutor(settings.query_concurrency, thread_name_prefix="reader")
    try:
        yield Reader(partial(chdb.connect, engine_path(settings)), settings, threads)
    finally:
        threads.shutdown(cancel_futures=True)
