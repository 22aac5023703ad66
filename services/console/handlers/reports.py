"""Usage and the list of requests, read from ClickHouse."""

import msgspec
from aiohttp import web

from services.console import api
from services.console.core import reports, stories
from services.console.core.focus import focus_csv
from services.console.core.problem import Invalid
from services.console.handlers.context import ANALYTICS, answer, directory, query

FILES = {
    "csv": ("CSVWithNames", "text/csv"),
    "parquet": ("Parquet", "application/vnd.apache.parquet"),
}
ADDED_UP = ("attempts", "estimated", *reports.SUMS)
"""What groups can be added up by; a request with attempts in two groups would count twice."""


async def usage(request: web.Request) -> web.Response:
    asked = query(request, api.UsageQuery)
    wanted, groups = reports.usage(asked, directory(request))
    if asked.format in FILES:
        form, content_type = FILES[asked.format]
        exact = msgspec.structs.replace(wanted, parameters=wanted.parameters | {"most": asked.limit})
        return _file(await request.app[ANALYTICS].file(exact, form), content_type, f"usage.{asked.format}")
    rows = await request.app[ANALYTICS].rows(wanted)
    shown = rows[: asked.limit]
    if asked.format == "focus":
        return _file(focus_csv(shown), "text/csv", "focus.csv")
    return answer(
        api.UsageAnswer(
            items=tuple(shown),
            totals=stories.totals(shown, ADDED_UP),
            group_by=groups,
            truncated=len(rows) > len(shown),
        )
    )


def _file(data: bytes, content_type: str, name: str) -> web.Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=data, content_type=content_type, headers=headers)


async def requests(request: web.Request) -> web.Response:
    asked = query(request, api.RequestsQuery)
    rows = await request.app[ANALYTICS].rows(reports.requests(asked, directory(request)))
    shown = rows[: asked.limit]
    following = ""
    if len(rows) > len(shown):
        at, request_id = shown[-1]["ts"], shown[-1]["request_id"]
        assert isinstance(at, int)
        following = reports.cursor(at, str(request_id))
    return answer(api.Requests(items=tuple(stories.request_item(row) for row in shown), next_cursor=following))


async def story(request: web.Request) -> web.Response:
    request_id = request.match_info["request_id"]
    found = await request.app[ANALYTICS].rows(reports.request(request_id))
    if not found:
        raise Invalid("request_id", f"there is no request `{request_id}`", "not_found", 404)
    entries = await request.app[ANALYTICS].rows(reports.attempts(request_id))
    return answer(
        api.RequestStory(
            request=stories.request_item(found[0]),
            decision=stories.told(found[0]),
            attempts=tuple(stories.told(entry) for entry in entries),
        )
    )
