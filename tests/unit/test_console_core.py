"""The console's small decisions: money, sessions, queries, the ticker, the OpenAPI document."""

import json
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console import api, openapi
from services.console.core import access, reports
from services.console.core.access import Caller
from services.console.core.focus import focus_csv
from services.console.core.forecast import forecast_nano_usd
from services.console.core.money import fraction_ppm, nano_usd, percent_of, percent_ppm, pico_per_token, usd_of
from services.console.core.problem import Invalid
from services.console.core.ticker import DAY, REMEMBERED, Base, Ticker
from services.console.handlers.routes import ROUTES
from shared.contracts.attribution import Principal
from shared.contracts.edge import Line, RequestCompleted, UsageRecorded
from shared.contracts.ledger import Commit, Entry
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import Position
from shared.directory import Directory

NOON = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z
SECOND = 1_000_000


@given(st.integers(0, 2**63 - 1))
def test_every_amount_is_told_so_that_it_reads_back_exactly(nano: int) -> None:
    told = usd_of(nano)
    assert nano_usd(told, "") == nano
    assert nano_usd(json.loads(json.dumps(told)), "") == nano


def test_a_price_beyond_all_prices_is_a_typing_error() -> None:
    assert pico_per_token(10_000, "") == 10**10
    with pytest.raises(Invalid):
        pico_per_token(10_001, "")
    with pytest.raises(Invalid):
        percent_ppm(100_001, "")


@given(st.integers(-1_000_000, 10**9))
def test_every_percentage_reads_back_exactly(ppm: int) -> None:
    assert percent_ppm(percent_of(ppm), "") == ppm


@given(st.decimals(0, 10**6, places=9))
def test_dollars_as_text_are_exact(usd: Decimal) -> None:
    assert nano_usd(str(usd), "") == int(usd * 10**9)


def test_floats_are_read_by_their_shortest_text() -> None:
    assert nano_usd(0.1, "") == 100_000_000
    with pytest.raises(Invalid):
        nano_usd(0.1 + 0.2, "x")  # 0.30000000000000004 is more than nine decimals: say what you mean
    assert (fraction_ppm(0.95), fraction_ppm(1 / 3)) == (950_000, 333_333)


def test_a_session_opens_until_it_ends_and_only_with_its_own_key() -> None:
    key = access.session_key("token")
    who = Caller(role="admin", actor="admin", expires_at=NOON)
    cookie = access.sealed(who, key)
    assert access.opened(cookie, key, NOON - 1) == who
    assert access.opened(cookie, key, NOON) is None
    assert access.opened(cookie, access.session_key("another token"), NOON - 1) is None
    assert access.opened("", key, 0) is access.opened("a.b", key, 0) is None
    for place in range(len(cookie)):
        changed = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
        # the last characters of base64 have bits that mean nothing; what is opened is what was sealed, or nothing
        assert access.opened(changed, key, NOON - 1) in (None, who)


def test_an_empty_admin_token_opens_nothing() -> None:
    assert not access.same_token("", "")
    assert access.same_token("a", "a")
    assert not access.same_token("a\udcff", "a")


@pytest.mark.parametrize(
    ("origin", "site", "own"),
    [
        ("http://console:8081", "", True),
        ("http://console:8081", "same-origin", True),
        ("http://console:8081", "cross-site", False),
        ("http://console", "", False),
        ("http://evil.example", "", False),
        ("http://[console:8081", "", False),
        ("null", "", False),
        ("", "", False),
        ("", "none", False),
    ],
)
def test_a_write_with_a_cookie_comes_from_our_own_page(origin: str, site: str, own: bool) -> None:
    assert access.same_origin("console:8081", origin, site) is own


def test_roles_read_and_only_admins_write() -> None:
    for role in access.READERS:
        who = Caller(role=role, actor="x")
        assert access.allowed(who, "read")
        assert access.allowed(who, "write") is (role == "admin")


def test_a_forecast_goes_on_at_the_pace_so_far() -> None:
    day = "2026-11-21T00:00:00+00:00[UTC]"
    assert forecast_nano_usd(10, day, NOON + DAY // 2, NOON) == 20
    assert forecast_nano_usd(10, day, NOON + DAY // 2, NOON + DAY) == 10
    assert forecast_nano_usd(10, day, NOON + DAY // 2, NOON - DAY // 2 + SECOND) is None
    assert forecast_nano_usd(10, "total", 0, NOON) is None


def test_queries_bind_what_comes_from_outside_and_refuse_other_groups() -> None:
    nasty = "x' OR 1=1 --"
    query = api.UsageQuery(group_by="key, day,key", model=nasty, session=nasty, key=nasty)
    found, groups = reports.usage(query, Directory())
    assert groups == ("key", "day")
    assert nasty not in found.sql
    assert (found.parameters["model"], found.parameters["key"]) == (nasty, nasty)
    listed = reports.requests(api.RequestsQuery(verdict=nasty, cursor=reports.cursor(5, nasty)), Directory())
    assert nasty not in listed.sql
    assert (listed.parameters["before"], listed.parameters["before_id"]) == (5, nasty)
    for group in ("cost", "1", "key) FROM x --"):
        with pytest.raises(Invalid):
            reports.usage(api.UsageQuery(group_by=group), Directory())


@given(st.integers(0, 2**62), st.text(max_size=40))
def test_a_cursor_reads_back(at: int, request_id: str) -> None:
    assert reports.read_cursor(reports.cursor(at, request_id)) == (at, request_id)


def test_focus_amounts_are_exact_decimals() -> None:
    row: dict[str, object] = {
        "day": "2026-12-31",
        "cost_nano_usd": 1,
        "charge_nano_usd": 2_500_000_000,
        "input_tokens": 7,
    }
    line = focus_csv([row]).decode()
    assert "0.000000001" in line
    assert "2.500000000" in line
    assert "2027-01-01T00:00:00Z" in line
    assert focus_csv([]).decode().startswith("BillingAccountId,")


def completed(request_id: str, attempts: int = 1) -> RequestCompleted:
    return RequestCompleted(
        request_id=request_id,
        edge="e",
        epoch=1,
        spool_seq=1,
        principal=Principal(),
        verdict="admitted",
        attempts=tuple(f"{request_id}-{n}" for n in range(attempts)),
    )


def booked(request_id: str, cost: int, at: int = NOON, attempt: int = 0) -> Commit:
    usage = UsageRecorded(
        rid=f"{request_id}-{attempt}",
        request_id=request_id,
        attempt=attempt,
        kind="settled",
        shard="0",
        edge="e",
        epoch=1,
        spool_seq=1,
        principal=Principal(),
    )
    lines = tuple(
        PricedLine(
            line=Line(meter=m, quantity=10, model="m"), rate_id="r", list_pico_usd=0, cost_pico_usd=0, charge_pico_usd=0
        )
        for m in ("input", "output", "thinking", "web_search", "meter_of_tomorrow")
    )
    priced = UsagePriced(
        usage=usage,
        lines=lines,
        list_nano_usd=cost,
        cost_nano_usd=cost,
        charge_nano_usd=cost,
        price_version="v",
        usage_at=Position(),
    )
    entry = Entry(
        event_id=f"{usage.rid}:0", kind="settled", corrects="", admitted_at=at, booked_at=at, charges=(), usage=priced
    )
    return Commit(shard="0", owner_epoch=1, at=at, digest=b"", priced=Position(), events=(entry,))


def test_a_request_is_told_at_once_and_again_when_each_attempt_has_its_price() -> None:
    ticker, directory = Ticker(), Directory()
    first = ticker.request(completed("q", attempts=2), directory, NOON)
    assert (first.priced, first.cost_nano_usd) == (False, 0)
    (second,) = ticker.commit(booked("q", 5), 1, directory)
    (third,) = ticker.commit(booked("q", 7, attempt=1), 2, directory)
    assert (second.priced, second.cost_nano_usd) == (False, 5)
    assert (third.priced, third.cost_nano_usd) == (True, 12)
    assert (third.output_tokens, third.thinking_tokens, third.web_search_requests) == (40, 20, 20)
    assert ticker.snapshot() == [third]


def test_a_price_that_comes_before_its_request_is_not_lost() -> None:
    ticker, directory = Ticker(), Directory()
    assert ticker.commit(booked("q", 5), 1, directory) == []
    told = ticker.request(completed("q"), directory, NOON)
    assert (told.priced, told.cost_nano_usd) == (True, 5)


def test_the_ticker_remembers_a_bounded_number_of_requests() -> None:
    ticker, directory = Ticker(), Directory()
    for number in range(REMEMBERED + 10):
        ticker.request(completed(f"q{number}"), directory, NOON)
    assert len(ticker._told) == REMEMBERED
    assert len(ticker.snapshot()) == 50


def test_spend_today_counts_each_entry_once_by_analytics_or_by_what_was_seen() -> None:
    ticker, directory = Ticker(), Directory()
    for seq in range(1, 6):
        ticker.commit(booked(f"q{seq}", 10, at=NOON + seq * SECOND), seq, directory)
    ticker.commit(booked("yesterday", 1000, at=NOON - DAY), 6, directory)
    now = NOON + 10 * SECOND
    assert (ticker.spend(now).today_nano_usd, ticker.spend(now).complete) == (50, False)
    ticker.known_by_analytics(Base(NOON - DAY // 2, 730, 3), now)  # 700 before we started, and the first three
    spend = ticker.spend(now)
    assert (spend.today_nano_usd, spend.minute_nano_usd, spend.complete) == (750, 50, True)
    assert ticker.spend(NOON + 62 * SECOND).minute_nano_usd == 30
    assert ticker.spend(NOON + DAY).today_nano_usd == 0


def test_every_reference_of_the_openapi_document_leads_somewhere() -> None:
    told = json.loads(json.dumps(openapi.document()))
    schemas = told["components"]["schemas"]
    references = re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(told))
    assert references
    assert set(references) <= set(schemas)
    names = [operation["operationId"] for path in told["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)
    assert schemas["KeyBody"]["required"]
    assert "required" not in schemas["KeyBodyPatch"]
    assert told["paths"]["/api/v1/me"]["get"]["security"] == [{"virtualKey": []}]


def test_every_route_that_changes_something_needs_the_right_to_write() -> None:
    for route in ROUTES:
        if route.method != "GET" and not route.path.endswith("/session"):
            assert route.need == "write", route.path
        assert route.need != "public" or route.path.endswith("/session"), route.path
