"""The console's reports from the real analytics, over its ClickHouse port."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]  # ships no type information
import pytest
from aiohttp import ClientSession, web
from ulid import ULID

from services.console.app import build_app
from services.console.settings import Settings
from shared.bus import BusSettings, open_bus, provision
from shared.contracts.config import ConfigChanged, Customer, Key, Org, Provider, Team
from shared.contracts.message import encode
from tests.fixtures.analytics import Analytics
from tests.fixtures.broker import Broker
from tests.fixtures.ledger import START, commit, entry, request
from tests.fixtures.waiting import until

TOKEN = "admin-token-of-this-test"
DAY = 86_400_000_000
ORGANISATION = ConfigChanged(
    config_rev=1,
    at=START,
    actor="admin",
    puts=(
        Org(uid="ORG", id="default"),
        Customer(uid="CUSTOMER", org="ORG", id="acme"),
        Team(uid="TEAM", org="ORG", customer="CUSTOMER", id="platform"),
        Key(uid="KEY", org="ORG", customer="CUSTOMER", team="TEAM", id="dev-asha", owner="asha@acme.example"),
        Provider(uid="PROVIDER", org="ORG", name="anthropic", kind="anthropic", base_url="http://127.0.0.1:1"),
    ),
)
COST = entry("a").usage.cost_nano_usd


async def fill(settings: BusSettings) -> None:
    """Requests a to e, a second apart; e was refused; b was settled and then corrected; d is of the next day."""
    async with open_bus(settings, "test") as bus:
        await provision(bus)
        await bus.append("config.changed", encode(ORGANISATION))
        for n, rid in enumerate("abcd"):
            at = START + n * 1_000_000 + (DAY if rid == "d" else 0)
            await bus.append("request.completed", encode(request(f"req_{rid}", at=at)))
            await bus.append("ledger.0", encode(commit(entry(rid, at=at), at=at)))
        again = entry("b", at=START + 1_000_000, kind="correction", n=1, tokens={"output": 10})
        await bus.append("ledger.0", encode(commit(again, at=START + 9_000_000)))
        await bus.append("request.completed", encode(request("req_e", verdict="refused", at=START + 4_000_000)))


@pytest.fixture(scope="module")
def served(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Analytics, BusSettings]]:
    settings = broker.settings(f"t{ULID()}")
    asyncio.run(fill(settings))
    running = Analytics(tmp_path_factory.mktemp("reports"), settings)
    running.start()
    yield running, settings
    running.stop()


class Reader:
    def __init__(self, url: str, session: ClientSession) -> None:
        self._url, self._session = url, session

    async def raw(self, path: str, status: int = 200) -> bytes:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self._session.get(f"{self._url}/api/v1/{path}", headers=headers) as answer:
            content = await answer.read()
            assert answer.status == status, content
            return content

    async def json(self, path: str, status: int = 200) -> dict[str, Any]:
        async with self._session.get(
            f"{self._url}/api/v1/{path}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as answer:
            found: dict[str, Any] = await answer.json()
            assert answer.status == status, found
            return found


@pytest.fixture
async def reader(served: tuple[Analytics, BusSettings]) -> AsyncIterator[Reader]:
    analytics, bus = served
    url = f"http://127.0.0.1:{analytics.ports['clickhouse']}"
    runner = web.AppRunner(build_app(Settings(bus=bus, admin_token=TOKEN, clickhouse_url=url)))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession() as session:
        made = Reader(f"http://127.0.0.1:{runner.addresses[0][1]}", session)
        await until(lambda: _all_in(made), seconds=20, what="every row is in")
        yield made
    await runner.cleanup()


async def _all_in(reader: Reader) -> bool:
    usage = await reader.json("usage")
    requests = await reader.json("requests")
    return (
        len(requests["items"]) == 5
        and usage["items"][0]["attempts"] == 4
        and usage["totals"]["output_tokens"] > 4 * 340
    )


async def test_usage_is_summed_exactly_by_group_with_names(reader: Reader) -> None:
    corrected = entry("b", n=1, tokens={"output": 10}).usage.cost_nano_usd
    whole = await reader.json("usage")
    assert whole["totals"]["cost_nano_usd"] == 4 * COST + corrected
    by_key = await reader.json("usage?group_by=customer,team,key,model,provider")
    (item,) = by_key["items"]
    assert (item["customer"], item["team"], item["key"], item["provider"]) == (
        "acme",
        "platform",
        "dev-asha",
        "anthropic",
    )
    assert (item["key_uid"], item["owner"], item["model"]) == ("KEY", "asha@acme.example", "claude-sonnet-5")
    assert (item["requests"], item["attempts"]) == (4, 4)
    by_day = await reader.json("usage?group_by=day")
    assert [(item["day"], item["requests"]) for item in by_day["items"]] == [("2026-11-21", 3), ("2026-11-22", 1)]
    first = await reader.json("usage?group_by=session,hour&to=2026-11-22")
    assert first["items"][0]["requests"] == 3
    assert (await reader.json("usage?group_by=day&limit=1"))["truncated"] is True


async def test_usage_filters_by_name_uid_and_instant_and_takes_no_sql(reader: Reader) -> None:
    for filtered, count in (
        ("key=dev-asha", 4),
        ("key=KEY&team=acme/platform", 4),
        ("key=nobody", 0),
        ("model=claude-sonnet-5&from=2026-11-22", 1),
        ("session=session-1", 4),
        ("model=x'%20OR%201=1%20--", 0),
    ):
        assert (await reader.json(f"usage?{filtered}"))["totals"]["attempts"] == count, filtered
    assert (await reader.json("usage?group_by=tags", 400))["error"]["field"] == "group_by"
    assert (await reader.json("usage?from=yesterday", 400))["error"]["field"] == "from"
    assert (await reader.json("usage?grop_by=day", 400))["error"]["code"] == "unknown_field"


async def test_usage_comes_as_csv_parquet_and_focus(reader: Reader) -> None:
    rows = list(csv.DictReader(io.StringIO((await reader.raw("usage?group_by=day&format=csv")).decode())))
    assert [(row["day"], row["requests"]) for row in rows] == [("2026-11-21", "3"), ("2026-11-22", "1")]
    table = pyarrow.parquet.read_table(io.BytesIO(await reader.raw("usage?group_by=day&format=parquet")))
    assert sum(table.column("cost_nano_usd").to_pylist()) == (await reader.json("usage"))["totals"]["cost_nano_usd"]
    focus = list(csv.DictReader(io.StringIO((await reader.raw("usage?format=focus")).decode())))
    assert [row["ChargePeriodStart"] for row in focus] == ["2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"]
    assert focus[1]["EffectiveCost"] == f"{COST / 1e9:.9f}"
    assert (focus[0]["SubAccountName"], focus[0]["ResourceName"]) == ("platform", "dev-asha")
    assert (focus[0]["BillingPeriodStart"], focus[0]["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
    )


async def test_requests_are_listed_newest_first_page_by_page_with_their_sums(reader: Reader) -> None:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await reader.json(f"requests?limit=2&cursor={cursor}")
        assert len(page["items"]) <= 2
        found += page["items"]
        if not (cursor := page["next_cursor"]):
            break
    assert [item["request_id"] for item in found] == ["req_d", "req_e", "req_c", "req_b", "req_a"]
    by_id = {item["request_id"]: item for item in found}
    assert (by_id["req_a"]["cost_nano_usd"], by_id["req_a"]["priced"], by_id["req_a"]["key"]) == (
        COST,
        True,
        "dev-asha",
    )
    assert by_id["req_b"]["cost_nano_usd"] > COST
    assert (by_id["req_e"]["verdict"], by_id["req_e"]["cost_nano_usd"]) == ("refused", 0)
    assert [i["request_id"] for i in (await reader.json("requests?verdict=refused"))["items"]] == ["req_e"]
    assert len((await reader.json("requests?key=dev-asha&to=2026-11-22"))["items"]) == 4
    assert (await reader.json("requests?cursor=abc", 400))["error"]["field"] == "cursor"


async def test_a_request_tells_its_whole_story(reader: Reader) -> None:
    story = await reader.json("requests/req_b")
    assert story["request"]["request_id"] == "req_b"
    assert story["decision"]["verdict"] == "admitted"
    settled, correction = story["attempts"]
    assert (settled["kind"], correction["kind"], correction["corrects"]) == ("settled", "correction", "b:0")
    assert settled["price_version"] == "test-1"
    assert {line["rate_id"] for line in settled["lines"]} == {"test:sonnet"}
    assert settled["ts"].startswith("2026-11-21T10:00:01")
    await reader.json("requests/req_nobody", 404)


async def test_status_finds_analytics(reader: Reader) -> None:
    status = await reader.json("status")
    assert {s["name"]: s["state"] for s in status["services"]}["analytics"] == "ok"
    assert {s["stream"]: s["seq"] for s in status["streams"]}["LEDGER"] == 5
