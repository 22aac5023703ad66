"""The console's real application on a real broker; budget is played by a small responder."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse, ClientSession, web

from services.console.app import build_app
from services.console.settings import Settings
from shared.bus import Bus, BusSettings, open_bus, provision
from shared.bus.config import ConfigFollower
from shared.clock import now
from shared.contracts.attribution import Principal
from shared.contracts.budget import BALANCES, Balance, Balances, BalancesAsked
from shared.contracts.config import CONFIG_CHANGED, ConfigChanged
from shared.contracts.edge import REQUEST_COMPLETED, Line, RequestCompleted, UsageRecorded
from shared.contracts.ledger import LEDGER_COMMITTED, Commit, Entry
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import CONFIG, Position
from shared.directory import Directory
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import until

TOKEN = "admin-token-of-this-test"
DOCUMENT = """
contact: platform@acme.example
providers:
  - {name: anthropic, kind: anthropic, base_url: "http://127.0.0.1:9", credential: "env:ANTHROPIC_API_KEY"}
customers:
  - id: acme
    budgets: [{limit_usd: 100, period: year}]
    teams:
      - id: platform
        keys:
          - {id: dev-asha, owner: asha@acme.example, budgets: [{limit_usd: 5, period: day}], secret: vk-fixed-secret-of-asha}
          - id: dev-omar
"""


class Console:
    """A running console and a way to call it."""

    def __init__(self, app: web.Application, url: str, session: ClientSession) -> None:
        self.app, self.url, self.session = app, url, session

    async def call(
        self, method: str, path: str, body: object = None, *, status: int = 200, **headers: str
    ) -> dict[str, Any]:
        """The decoded answer; fails with it when the status is another one."""
        answer = await self.raw(method, path, body, **headers)
        content = await answer.read()
        assert answer.status == status, (answer.status, content)
        found: dict[str, Any] = json.loads(content) if content else {}
        return found

    async def raw(self, method: str, path: str, body: object = None, **headers: str) -> ClientResponse:
        given = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        data = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
        given = {name: text for name, text in given.items() if text}
        return await self.session.request(method, f"{self.url}{path}", data=data, headers=given)

    async def apply(self, document: str, query: str = "") -> dict[str, Any]:
        return await self.call("POST", f"/api/v1/organisation{query}", document, Content_Type="application/yaml")


class MemoryBudget:
    """Balances of every rule in CONFIG, with what a test says was spent."""

    def __init__(self, follower: ConfigFollower) -> None:
        self._follower = follower
        self.spent: dict[str, int] = {}

    async def answer(self, data: bytes) -> bytes:
        asked = Decoder(BalancesAsked).decode(data)
        directory = self._follower.directory
        items = [
            Balance(
                budget_id=rule.id,
                scope=scope,
                scope_uid=uid,
                period=rule.period,
                period_id="2026-11-21T00:00:00+00:00[UTC]",
                mode=rule.mode,
                limit_nano_usd=rule.limit_nano_usd,
                spent_nano_usd=self.spent.get(rule.id, 0),
                held_nano_usd=0,
                resets_at=1_795_305_600_000_000,
            )
            for _, scope, uid, rule in directory.all_rules()
            if not asked.budget_ids or rule.id in asked.budget_ids
        ]
        page = tuple(items[asked.offset : asked.offset + asked.limit])
        return encode(Balances(items=page, total=len(items), config_rev=directory.config_rev, owner_epoch=1))


@pytest.fixture
async def console(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> AsyncIterator[Console]:
    web_dir = tmp_path / "web"
    web_dir.mkdir()
    (web_dir / "index.html").write_text("<title>page</title>")
    (web_dir / "page.js").write_text("1;")
    (tmp_path / "secret.txt").write_text("not for everybody")
    async with running(bus_settings, web_dir=str(web_dir)) as made:
        yield made


@asynccontextmanager
async def running(bus: BusSettings, web_dir: str = "") -> AsyncIterator[Console]:
    """Without analytics: nothing listens on that port."""
    settings = Settings(bus=bus, admin_token=TOKEN, web_dir=web_dir, clickhouse_url="http://127.0.0.1:9")
    app = build_app(settings)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with ClientSession() as session:
        yield Console(app, f"http://127.0.0.1:{port}", session)
    await runner.cleanup()


@pytest.fixture
async def budget(bus: Bus) -> AsyncIterator[MemoryBudget]:
    follower = ConfigFollower(bus)
    task = asyncio.create_task(follower.run())
    played = MemoryBudget(follower)
    await bus.subscribe(BALANCES.format(shard="0"), played.answer)
    yield played
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def config_of(bus: Bus) -> Directory:
    """CONFIG as any other service folds it."""
    directory, end = Directory(), (await bus.end(CONFIG)).seq
    async for messages in bus.follow(CONFIG):
        for stored in messages:
            directory.apply(Decoder(ConfigChanged).decode(stored.data))
        if messages[-1].seq >= end:
            return directory
    raise AssertionError


async def test_a_document_applied_is_what_every_follower_of_config_sees(console: Console, bus: Bus) -> None:
    applied = await console.apply(DOCUMENT)
    assert [secret["key"] for secret in applied["secrets"]] == ["acme/platform/dev-omar"]
    assert applied["secrets"][0]["secret"].startswith("vk-")
    directory = await config_of(bus)
    assert directory.config_rev == applied["config_rev"] == 1
    asha = directory.key_of_secret(hashlib.sha256(b"vk-fixed-secret-of-asha").digest())
    omar = directory.key_of_secret(hashlib.sha256(applied["secrets"][0]["secret"].encode()).digest())
    assert asha is not None
    assert omar is not None
    assert (asha[0].id, omar[0].id) == ("dev-asha", "dev-omar")
    again = await console.apply(DOCUMENT)
    assert (again["config_rev"], again["changes"], again["secrets"]) == (1, [], [])


async def test_a_dry_run_tells_the_difference_and_changes_nothing(console: Console, bus: Bus) -> None:
    told = await console.apply(DOCUMENT, "?dry_run=true")
    assert told["dry_run"] is True
    assert {change["path"] for change in told["changes"]} >= {"acme", "acme/platform", "acme/platform/dev-asha"}
    assert told["secrets"] == []
    assert (await bus.end(CONFIG)).seq == 0


async def test_what_get_returns_can_be_applied_again_and_changes_nothing(console: Console) -> None:
    await console.apply(DOCUMENT)
    answer = await console.raw("GET", "/api/v1/organisation?format=yaml")
    text = await answer.text()
    assert "vk-" not in text
    assert (await console.apply(text))["changes"] == []


async def test_a_misspelt_budget_is_an_error_that_names_the_field(console: Console) -> None:
    document = DOCUMENT.replace("limit_usd: 100", "limit_us: 100")
    answer = await console.raw("POST", "/api/v1/organisation", document, Content_Type="application/yaml")
    assert answer.status == 400
    error = (await answer.json())["error"]
    assert error["code"] == "unknown_field"
    assert error["field"] == "customers[0].budgets[0].limit_us"


async def test_entities_are_made_changed_listed_and_deleted(console: Console) -> None:
    await console.apply(DOCUMENT)
    made = await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=201)
    assert (made["path"], made["managed_by"], made["revision"]) == ("acme/data", "console", 1)
    changed = await console.call("PATCH", "/api/v1/teams/data", {"contact": "data@acme.example"}, If_Match='"1"')
    assert (changed["contact"], changed["revision"]) == ("data@acme.example", 2)
    await console.call("PATCH", "/api/v1/teams/data", {"contact": ""}, If_Match='"1"', status=412)
    await console.call("PATCH", "/api/v1/teams/data", {"contct": ""}, status=400)
    await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=409)
    page = await console.call("GET", "/api/v1/teams?limit=1")
    rest = await console.call("GET", f"/api/v1/teams?limit=1&cursor={page['next_cursor']}")
    assert [item["id"] for item in page["items"] + rest["items"]] == ["data", "platform"]
    assert rest["next_cursor"] == ""
    await console.call("DELETE", "/api/v1/teams/data")
    await console.call("GET", "/api/v1/teams/data", status=404)
    await console.call("DELETE", "/api/v1/customers/acme", status=409)


async def test_file_apply_leaves_what_the_console_manages(console: Console) -> None:
    await console.apply(DOCUMENT)
    await console.call("POST", "/api/v1/keys", {"id": "bot", "team": "platform"}, status=201)
    assert (await console.apply(DOCUMENT))["changes"] == []
    pruned = await console.apply(DOCUMENT, "?prune=true")
    assert [(change["action"], change["path"]) for change in pruned["changes"]] == [("delete", "acme/platform/bot")]


async def test_a_key_is_shown_its_secret_once_revoked_and_rotated(console: Console, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    made = await console.call("POST", "/api/v1/keys", {"id": "ci", "team": "acme/platform"}, status=201)
    secret = made["secret"]
    shown = await console.call("GET", "/api/v1/keys/ci")
    assert "secret" not in shown
    assert secret not in json.dumps(shown)
    assert shown["secrets"][0]["hint"] == f"{secret[:7]}…"
    rotated = await console.call("POST", "/api/v1/keys/ci/rotate", {"overlap_seconds": 60})
    assert rotated["secret"] != secret
    directory = await config_of(bus)
    for working in (secret, rotated["secret"]):
        found = directory.key_of_secret(hashlib.sha256(working.encode()).digest())
        assert found is not None
        assert found[0].uid == made["uid"]
    revoked = await console.call("POST", f"/api/v1/keys/{made['uid']}/revoke")
    assert (revoked["state"], revoked["revoked"]) == ("revoked", True)
    assert (await config_of(bus)).key(made["uid"]).revoked_at > 0
    await console.call("POST", "/api/v1/keys/ci/rotate", {}, status=409)


async def test_a_slug_that_two_keys_have_is_refused_naming_the_paths(console: Console) -> None:
    await console.apply(DOCUMENT)
    await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=201)
    await console.call("POST", "/api/v1/keys", {"id": "dev-asha", "team": "data"}, status=201)
    told = await console.call("POST", "/api/v1/keys/dev-asha/revoke", status=409)
    assert "acme/data/dev-asha" in told["error"]["message"]
    assert "acme/platform/dev-asha" in told["error"]["message"]
    await console.call("POST", "/api/v1/keys/acme%2Fdata%2Fdev-asha/revoke")


async def test_a_post_sent_twice_with_one_idempotency_key_is_done_once(console: Console) -> None:
    await console.apply(DOCUMENT)
    body = {"id": "ci", "team": "platform"}
    first, second = await asyncio.gather(
        *(console.call("POST", "/api/v1/keys", body, status=201, Idempotency_Key="k1") for _ in range(2))
    )
    assert first == second
    await console.call("POST", "/api/v1/keys", body | {"owner": "x"}, status=409, Idempotency_Key="k1")


async def test_writes_at_the_same_time_lose_nothing(console: Console, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    await asyncio.gather(
        *(console.call("POST", "/api/v1/keys", {"id": f"k{n}", "team": "platform"}, status=201) for n in range(20))
    )
    directory = await config_of(bus)
    assert directory.config_rev == 21
    assert sum(1 for entity in directory.entities.values() if type(entity).__name__ == "Key") == 22


async def test_another_writer_in_between_makes_the_console_decide_again(console: Console, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    foreign = ConfigChanged(config_rev=2, at=1, actor="another console", more=True)
    await bus.append(CONFIG_CHANGED, encode(foreign))
    made = await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=201)
    directory = await config_of(bus)
    assert directory.config_rev == 3
    assert made["uid"] in directory.entities


async def test_two_consoles_write_at_the_same_time_and_lose_nothing(
    console: Console, bus: Bus, bus_settings: BusSettings
) -> None:
    await console.apply(DOCUMENT)
    async with running(bus_settings) as other:
        await asyncio.gather(
            *(
                writer.call("POST", "/api/v1/keys", {"id": f"{name}{n}", "team": "platform"}, status=201)
                for n in range(8)
                for name, writer in (("a", console), ("b", other))
            )
        )
        assert len((await other.call("GET", "/api/v1/keys"))["items"]) == 18
    directory = await config_of(bus)
    assert directory.config_rev == 17
    assert sum(1 for entity in directory.entities.values() if type(entity).__name__ == "Key") == 18


async def test_a_broker_that_is_away_is_told_and_waited_for(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    settings = msgspec.structs.replace(broker.settings(), request_timeout_seconds=0.3)
    async with open_bus(settings, "test") as bus:
        await provision(bus)
    async with running(settings) as console:
        await console.apply(DOCUMENT)
        broker.stop()
        answer = await console.raw("POST", "/api/v1/customers", {"id": "beta"})
        assert answer.status == 503
        assert len((await console.call("GET", "/api/v1/keys"))["items"]) == 2  # what is known can still be read
        broker.start()

        async def written() -> bool:
            return (await console.raw("POST", "/api/v1/customers", {"id": "beta"})).status in (201, 409)

        await until(written, seconds=20)
        assert [c["id"] for c in (await console.call("GET", "/api/v1/customers"))["items"]] == ["acme", "beta"]
    broker.stop()


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


async def test_an_empty_body_deletes_nothing(console: Console) -> None:
    await console.apply(DOCUMENT)
    for content_type in ("application/yaml", "application/octet-stream"):
        told = await console.call("POST", "/api/v1/organisation", b"", status=400, Content_Type=content_type)
        assert told["error"]["code"] == "empty"
    assert [key["id"] for key in (await console.call("GET", "/api/v1/keys"))["items"]] == ["dev-asha", "dev-omar"]
