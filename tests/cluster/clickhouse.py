"""Stands in for ClickHouse's server where its image cannot be had: the same engine behind the HTTP port, started as that one is.

In the image of tests/cluster/images it is `/usr/local/bin/clickhouse`. The folder comes from the `--config-file`, its port too.
It needs what Sluicegate's image with the engine has, and nothing of Sluicegate.
"""

import asyncio
import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import chdb
import lz4.frame  # type: ignore[import-untyped]  # ships no type information
from aiohttp import web

INSERT = re.compile(rb"\s*(INSERT\s+INTO\s.*?)\sFORMAT\s+(\w+)[ \t]*\n", re.DOTALL | re.IGNORECASE)
CODE = re.compile(r"Code: (\d+)\.")
_CONNECTION = """
    query query_id database default_format user password session_id wait_end_of_query buffer_size role quota_key framing
    enable_http_compression client_protocol_version send_progress_in_http_headers http_headers_progress_interval_ms
    cancel_http_readonly_queries_on_client_close http_zlib_compression_level
"""
ABOUT_THE_CONNECTION = frozenset(_CONNECTION.split())


class Server:
    """One query after the other on one handle each, so that no `USE` or `SET` outlives its query."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1)
        self._engine: Any = None  # the first handle keeps the engine

    async def open(self, _: web.Application) -> None:
        self._engine = await self._on_thread(partial(chdb.connect, self._path))

    async def close(self, _: web.Application) -> None:
        await self._on_thread(self._engine.close)

    async def _on_thread(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def ping(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def query(self, request: web.Request) -> web.Response:
        values, sql = dict(request.query), b""
        if request.content_type == "multipart/form-data":
            values |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        else:
            sql = await request.read()
            if request.headers.get("Content-Encoding", "") == "lz4":
                sql = lz4.frame.open(io.BytesIO(sql)).read()
        sql = b"\n".join(part for part in (values.get("query", "").encode(), sql) if part)
        form = request.headers.get("X-ClickHouse-Format") or values.get("default_format") or "TabSeparated"
        try:
            body = await self._on_thread(partial(self._answer, sql, form, values))
        except RuntimeError as error:
            found = CODE.search(str(error))
            headers = {"X-ClickHouse-Exception-Code": found[1] if found else "1002"}
            return web.Response(status=500, text=f"{error}\n", headers=headers)
        headers = {"X-ClickHouse-Summary": json.dumps({"written_rows": "0"}), "X-ClickHouse-Timezone": "UTC"}
        return web.Response(body=body, headers=headers)

    def _answer(self, sql: bytes, form: str, values: Mapping[str, str]) -> bytes:
        with contextlib.closing(chdb.connect(self._path)) as handle:  # type: ignore[no-untyped-call]  # ships no types
            if database := values.get("database"):
                handle.query(f"USE `{database}`")
            for name, value in values.items():
                if name not in ABOUT_THE_CONNECTION and not name.startswith("param_"):
                    handle.query(f"SET {name} = '{value}'")
            if found := INSERT.match(sql):
                with tempfile.NamedTemporaryFile() as rows:
                    rows.write(sql[found.end() :])
                    rows.flush()
                    handle.query(f"{found[1].decode()} FROM INFILE '{rows.name}' FORMAT {found[2].decode()}")
                return b""
            parameters = {
                name.removeprefix("param_"): value for name, value in values.items() if name.startswith("param_")
            }
            return bytes(handle.query(sql.decode(), form, params=parameters or None).bytes() or b"")


def application(path: str) -> web.Application:
    server = Server(path)
    app = web.Application(client_max_size=1 << 30)
    app.on_startup.append(server.open)
    app.on_cleanup.append(server.close)
    app.router.add_get("/ping", server.ping)
    app.router.add_route("*", "/", server.query)
    return app


def main() -> None:
    """`clickhouse server --config-file=…`, of which the lines `path:` and `http_port:` count."""
    (config,) = [each.split("=", 1)[1] for each in sys.argv if each.startswith("--config-file=")]
    told = dict(re.findall(r"^(path|http_port): (\S+)$", Path(config).read_text(), re.MULTILINE))
    Path(told["path"]).mkdir(parents=True, exist_ok=True)
    web.run_app(application(told["path"].rstrip("/")), port=int(told["http_port"]), print=None)


if __name__ == "__main__":
    main()
