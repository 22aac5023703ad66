"""ClickHouse's HTTP protocol, as far as readers need it, over the embedded engine. Loopback only, read only."""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import lz4.frame  # type: ignore[import-untyped]  # ships no type information
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from ulid import ULID

from services.analytics.core.answers import CONTENT_TYPES, QueryFailed
from services.analytics.stores.reader import Answer, Question, Reader
from shared.telemetry import analytics_queries

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = structlog.get_logger()

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_QUERY_BYTES = 1 << 20
MOST_ID_LENGTH = 128
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": lambda body: zlib.compress(body, 1),
}


def facade(reader: Reader) -> web.Application:
    """An application of its own, for a port of its own."""
    app = web.Application(middlewares=[_local_only], client_max_size=MOST_QUERY_BYTES)
    routes = _Routes(reader)
    app.router.add_get("/ping", routes.ping)
    app.router.add_get("/replicas_status", routes.ping)
    app.router.add_get("/", routes.query)
    app.router.add_post("/", routes.query)
    return app


@web.middleware
async def _local_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A web page can make its name resolve to this address, or ask blindly; both say so in their headers."""
    origin, site = request.headers.get("Origin", ""), request.headers.get("Sec-Fetch-Site", "")
    if (
        site == "cross-site"
        or _name(f"//{request.headers.get('Host', '')}") not in LOCAL_NAMES
        or (origin and _name(origin) not in LOCAL_NAMES)
    ):
        return web.Response(status=403, text="This port answers this machine only.\n")
    return await handler(request)


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


class _Routes:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def ping(self, request: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def query(self, request: web.Request) -> web.Response:
        query_id = _UNPRINTABLE.sub("?", request.query.get("query_id", ""))[:MOST_ID_LENGTH] or str(ULID())
        headers = {
            "X-ClickHouse-Server-Display-Name": "sluicegate",
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": "UTC",
        }
        try:
            question = await _question(request)
            if not question.sql.strip():
                return web.Response(text="Ok.\n", headers=headers)
            answer = await self._reader.ask(question)
        except QueryFailed as error:
            analytics_queries.labels(error.status).inc()
            log.info("facade.refused", query_id=query_id, code=error.code)
            headers |= {"X-ClickHouse-Exception-Code": str(error.code)}
            return web.Response(status=error.status, text=f"{error}\n", headers=headers)
        analytics_queries.labels(200).inc()
        log.debug("facade.answered", query_id=query_id, bytes=len(answer.body), elapsed_ns=answer.elapsed_ns)
        return _response(request, answer, headers)


async def _question(request: web.Request) -> Question:
    """The query may stand in the URL, in the body, half in each, or in a form beside its parameters. Raises QueryFailed."""
    values = dict(request.query)
    if values.get("compress", "0") != "0" or values.get("decompress", "0") != "0":
        raise QueryFailed.of(48, "Compressed blocks are not supported here, use HTTP compression", "NOT_IMPLEMENTED")
    values = {name: value for name, value in values.items() if name not in ("compress", "decompress")}
    if request.content_type == "multipart/form-data":
        body = ""
        values |= await _form(request)
    else:
        body = await _body(request)
    url_query = values.get("query", "")
    return Question(
        sql=f"{url_query}\n{body}" if url_query and body else url_query or body,
        default_format=request.headers.get("X-ClickHouse-Format") or values.get("default_format") or "TabSeparated",
        database=request.headers.get("X-ClickHouse-Database") or values.get("database", ""),
        settings=values,
        parameters=_parameters(values),
    )


async def _form(request: web.Request) -> dict[str, str]:
    try:
        form = await request.post()
    except (ValueError, RuntimeError, HttpProcessingError, web.RequestPayloadError) as error:
        # what aiohttp's reader of forms raises on a broken one
        raise QueryFailed.of(36, "The form cannot be read", "BAD_ARGUMENTS") from error
    found: dict[str, str] = {}
    for name, value in form.items():
        if not isinstance(value, str):
            raise QueryFailed.of(48, "External data is not supported here", "NOT_IMPLEMENTED")
        found[name] = value
    return found


async def _body(request: web.Request) -> str:
    """The server has undone gzip, deflate, zstd already."""
    try:
        body = await request.read()
    except web.RequestPayloadError as error:
        raise QueryFailed.of(36, "The body is not in the encoding it names", "BAD_ARGUMENTS") from error
    if request.headers.get("Content-Encoding", "").lower() == "lz4":
        try:
            body = lz4.frame.LZ4FrameDecompressor().decompress(body, max_length=MOST_QUERY_BYTES)
        except RuntimeError as error:
            raise QueryFailed.of(36, "The body is not an lz4 frame", "BAD_ARGUMENTS") from error
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise QueryFailed.of(62, "The query is not UTF-8", "SYNTAX_ERROR") from error


def _parameters(values: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix("param_"): value for name, value in values.items() if name.startswith("param_")}


def _response(request: web.Request, answer: Answer, headers: dict[str, str]) -> web.Response:
    body = answer.body
    headers |= {
        "Content-Type": CONTENT_TYPES.get(answer.format, "text/plain; charset=UTF-8"),
        "X-ClickHouse-Format": answer.format,
        "X-ClickHouse-Summary": json.dumps(
            {
                "read_rows": str(answer.read_rows),
                "read_bytes": str(answer.read_bytes),
                "result_bytes": str(len(body)),
                "elapsed_ns": str(answer.elapsed_ns),
            }
        ),
    }
    if request.query.get("enable_http_compression", "0") == "1":
        accepted = [part.split(";")[0].strip() for part in request.headers.get("Accept-Encoding", "").split(",")]
        if encoding := next((name for name in accepted if name in COMPRESSORS), ""):
            body = COMPRESSORS[encoding](body)
            headers["Content-Encoding"] = encoding
    return web.Response(body=body, headers=headers)
