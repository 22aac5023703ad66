"""What the console tells: balances, the holder of a key, sessions, the live feed."""

import asyncio
import json
from typing import Any

from aiohttp import ClientResponse

from shared.bus import Bus
from shared.clock import now
from shared.contracts.attribution import Principal
from shared.contracts.edge import REQUEST_COMPLETED, Line, RequestCompleted, UsageRecorded
from shared.contracts.ledger import LEDGER_COMMITTED, Commit, Entry
from shared.contracts.message import encode
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import Position
from tests.fixtures.console import DOCUMENT, TOKEN, Console, MemoryBudget, budget, console
from tests.fixtures.waiting import until

__all__ = ["budget", "console"]  # fixtures


async def test_budgets_show_what_the_owner_says_with_names(console: Console, budget: MemoryBudget) -> None:
    await console.apply(DOCUMENT)
    listed = await until(lambda: _budgets(console, 2))
    by_scope = {item["scope"]: item for item in listed}
    key = by_scope["key"]
    assert (key["scope_id"], key["path"]) == ("dev-asha", "acme/platform/dev-asha")
    budget.spent[key["id"]] = 6_000_000_000
    key = (await console.call("GET", "/api/v1/budgets?scope=key"))["items"][0]
    assert (key["limit_nano_usd"], key["spent_nano_usd"], key["remaining_nano_usd"]) == (
        5_000_000_000,
        6_000_000_000,
        0,
    )
    assert key["resets_at"] == "2026-11-22T00:00:00.000000Z"
    changed = await console.call("PATCH", f"/api/v1/budgets/{key['id']}", {"limit_usd": 7.5, "mode": "soft"})
    assert changed["balance"]["limit_nano_usd"] == 7_500_000_000
    assert changed["balance"]["remaining_nano_usd"] == 1_500_000_000
    assert changed["budget"]["mode"] == "soft"
    await console.call("PATCH", f"/api/v1/budgets/{key['id']}", {"period": "week"}, status=400)
    await console.call("PATCH", "/api/v1/budgets/key:nobody:day", {"limit_usd": 1}, status=404)


async def _budgets(console: Console, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await console.call("GET", "/api/v1/budgets"))["items"]
    return found if len(found) == count else []


async def test_without_budget_and_analytics_the_rest_goes_on(console: Console) -> None:
    await console.apply(DOCUMENT)
    answer = await console.raw("GET", "/api/v1/budgets")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert (await console.raw("GET", "/api/v1/requests")).status == 503
    status = await console.call("GET", "/api/v1/status")
    states = {service["name"]: service["state"] for service in status["services"]}
    assert (states["bus"], states["budget"], states["analytics"]) == ("ok", "down", "down")


async def test_the_holder_of_a_key_sees_its_own_budgets_and_nothing_else(
    console: Console, budget: MemoryBudget
) -> None:
    await console.apply(DOCUMENT)
    await until(lambda: _budgets(console, 2))
    bearer = "Bearer vk-fixed-secret-of-asha"
    told = await console.call("GET", "/api/v1/me", Authorization=bearer)
    assert (told["key"], told["team"], told["customer"]) == ("dev-asha", "platform", "acme")
    assert told["contact"] == "platform@acme.example"
    assert {item["scope"] for item in told["budgets"]} == {"key", "customer"}
    assert told["remaining_nano_usd"] == 5_000_000_000
    await console.call("GET", "/api/v1/keys", status=401, Authorization=bearer)
    await console.call("GET", "/api/v1/me", status=401)
    await console.call("POST", "/api/v1/keys/dev-asha/revoke")
    await console.call("GET", "/api/v1/me", status=401, Authorization=bearer)


async def test_nobody_without_the_token_gets_anything(console: Console) -> None:
    for path in ("organisation", "keys", "budgets", "usage", "requests", "status", "live", "session"):
        answer = await console.raw("GET", f"/api/v1/{path}", Authorization="")
        assert answer.status == 401, path
        assert answer.headers["Cache-Control"] == "no-store"
    await console.call("GET", "/api/v1/keys", status=401, Authorization="Bearer wrong")


async def test_a_session_reads_and_writes_from_its_own_page_only(console: Console) -> None:
    await console.call("POST", "/api/v1/session", {"token": "wrong"}, status=401, Authorization="")
    answer = await console.raw("POST", "/api/v1/session", {"token": TOKEN}, Authorization="")
    assert answer.status == 201
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    sent = {"Authorization": "", "Cookie": cookie.partition(";")[0]}
    assert (await (await console.raw("GET", "/api/v1/session", **sent)).json())["role"] == "admin"
    body = {"id": "beta"}
    await console.apply(DOCUMENT)
    assert (await console.raw("POST", "/api/v1/customers", body, **sent)).status == 403
    foreign = sent | {"Origin": "https://evil.example"}
    assert (await console.raw("POST", "/api/v1/customers", body, **foreign)).status == 403
    own = sent | {"Origin": console.url}
    assert (await console.raw("POST", "/api/v1/customers", body, **own)).status == 201
    forged = sent | {"Cookie": sent["Cookie"][:-3] + "abc"}
    assert (await console.raw("GET", "/api/v1/session", **forged)).status == 401


async def test_the_page_is_served_with_headers_and_nothing_above_it(console: Console) -> None:
    answer = await console.raw("GET", "/", Authorization="")
    assert (answer.status, await answer.text()) == (200, "<title>page</title>")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await console.raw("GET", "/static/page.js", Authorization="")).status == 200
    assert (await console.raw("GET", "/static/%2e%2e/secret.txt", Authorization="")).status == 404
    assert (await console.raw("GET", "/static/..%2Fsecret.txt", Authorization="")).status == 404
    assert (await console.raw("GET", "/static/%00", Authorization="")).status == 404
    assert (await console.raw("GET", f"/static/{'a' * 5000}", Authorization="")).status == 404
    wrong = await console.call("GET", "/api/v1/nothing", status=404)
    assert wrong["error"]["code"] == "not_found"
    described = await console.call("GET", "/api/openapi.json", Authorization="")
    assert described["openapi"] == "3.1.0"


async def test_the_live_page_sees_a_request_and_then_its_price(
    console: Console, bus: Bus, budget: MemoryBudget
) -> None:
    await console.apply(DOCUMENT)
    key = (await console.call("GET", "/api/v1/keys/dev-asha"))["uid"]
    live = await console.raw("GET", "/api/v1/live")
    assert live.headers["Content-Type"] == "text/event-stream"
    await bus.append(REQUEST_COMPLETED, encode(completed(key)))
    first = await event(live, "request")
    assert (first["key"], first["verdict"], first["priced"], first["ttft_ms"]) == ("dev-asha", "admitted", False, 120)
    await bus.append(LEDGER_COMMITTED.format(shard="0"), encode(commit(key)))
    second = await event(live, "request")
    assert (second["request_id"], second["priced"], second["cost_nano_usd"]) == ("req-1", True, 1_500_000)
    assert (second["output_tokens"], second["model"]) == (100, "claude-sonnet-5")
    spend = await event(live, "spend")
    while not spend["today_nano_usd"]:
        spend = await event(live, "spend")
    assert (spend["today_nano_usd"], spend["minute_requests"], spend["complete"]) == (1_500_000, 1, False)
    live.close()
    again = await console.raw("GET", "/api/v1/live")
    assert (await event(again, "request"))["request_id"] == "req-1"
    assert {item["scope"] for item in (await event(again, "balances"))["items"]} == {"key", "customer"}
    again.close()


async def event(live: ClientResponse, name: str) -> dict[str, Any]:
    """The next event of that name."""
    async with asyncio.timeout(10):
        while True:
            line = (await live.content.readline()).decode().strip()
            if line == f"event: {name}":
                found: dict[str, Any] = json.loads((await live.content.readline()).decode().removeprefix("data: "))
                return found


def completed(key: str) -> RequestCompleted:
    return RequestCompleted(
        request_id="req-1",
        edge="e",
        epoch=1,
        spool_seq=1,
        principal=Principal(key=key),
        verdict="admitted",
        status=200,
        attempts=("rid-1",),
        ttft_ms=120,
        request_model="claude-sonnet-5",
        received_at=now(),
    )


def commit(key: str) -> Commit:
    usage = UsageRecorded(
        rid="rid-1",
        request_id="req-1",
        attempt=0,
        kind="settled",
        shard="0",
        edge="e",
        epoch=1,
        spool_seq=1,
        principal=Principal(key=key),
        response_model="claude-sonnet-5",
    )
    line = PricedLine(
        line=Line(meter="output", quantity=100, model="claude-sonnet-5"),
        rate_id="r",
        list_pico_usd=1_500_000_000,
        cost_pico_usd=1_500_000_000,
        charge_pico_usd=1_500_000_000,
    )
    priced = UsagePriced(
        usage=usage,
        lines=(line,),
        list_nano_usd=1_500_000,
        cost_nano_usd=1_500_000,
        charge_nano_usd=1_500_000,
        price_version="v",
        usage_at=Position(),
    )
    entry = Entry(
        event_id="rid-1:0",
        kind="settled",
        corrects="",
        admitted_at=now(),
        booked_at=now(),
        charges=(),
        usage=priced,
    )
    return Commit(shard="0", owner_epoch=1, at=now(), digest=b"", priced=Position(), events=(entry,))
