"""Client contract, items 2, 9–13, 17, 23, 26, 27, 30, 32: what is refused, in which shape, and what never is."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio

from tests.fixtures.contract import CONTACT, Gateway, error_of, installation, message, our_id, recorded, request, secret
from tests.fixtures.money import bill_lines
from tests.fixtures.upstream import CAPTURES
from tests.fixtures.wire import Answer, RawClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNIFIED = "anthropic-ratelimit-unified-"
ANSWERS = json.loads((CAPTURES / "12-gateway-answers.json").read_text())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """With the key `spent` at its cap and `warned` near it."""
    async with installation(tmp_path_factory.mktemp("refusals")) as running:
        await running.spend("spent", 0.113)
        await running.spend("warned", 7.62)
        yield running


def unified(answer: Answer) -> dict[str, str]:
    found = {name.decode().lower(): value.decode() for name, value in answer.headers}
    return {name.removeprefix(UNIFIED): value for name, value in found.items() if name.startswith(UNIFIED)}


def next_month() -> int:
    """Unix seconds of the first of the next month, UTC."""
    today = datetime.now(UTC)
    year, month = divmod(today.year * 12 + today.month, 12)
    return int(datetime(year, month + 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_spent_budget_refuses_for_good_before_the_provider_is_called(gateway: Gateway, stream: bool) -> None:
    billed = len(bill_lines(gateway.up.bill))
    at = time.monotonic()
    answer = await gateway.post("spent", message("more", stream=stream))
    assert time.monotonic() - at < 2
    error = error_of(answer)
    assert (answer.status, error["type"]) == (429, "billing_error")
    assert answer.header("x-should-retry") == b"false"
    assert answer.header("content-type") == b"application/json"
    assert int(answer.header("retry-after") or 0) == pytest.approx(next_month() - time.time(), abs=10)
    for part in ("key 'spent'", "$0.113", "$0.10", "monthly", f"{datetime.fromtimestamp(next_month(), UTC):%Y-%m-%d}"):
        assert part in error["message"], error["message"]
    assert f"Ask {CONTACT} for an increase." in error["message"]
    assert len(error["message"].splitlines()) == 1
    assert len(bill_lines(gateway.up.bill)) == billed


async def test_a_refusal_speaks_the_native_budget_protocol(gateway: Gateway) -> None:
    """Header for header what Anthropic's own gateway sends, but for what depends on the day."""
    told = unified(await gateway.post("spent", message("more")))
    wanted = {name.removeprefix(UNIFIED): value for name, value in ANSWERS["budget_exceeded"]["headers"]}
    wanted = {name: wanted[name] for name in told}
    assert told | {"reset": "", "overage-reset": ""} == wanted | {"reset": "", "overage-reset": ""}
    assert told["reset"] == told["overage-reset"] == str(next_month())
    assert not {"representative-claim", "overage-status"} & set(told), "with them the client drops our sentence"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_success_near_the_cap_warns_natively(gateway: Gateway, stream: bool) -> None:
    wish = "input_tokens=1,output_tokens=1"
    answer = await gateway.simulate("warned", "hello", wish, max_tokens=10, stream=stream)
    assert answer.status == 200
    wanted = {name.removeprefix(UNIFIED): value for name, value in ANSWERS["allowed_warning"]["headers"]}
    wanted = {name: value for name, value in wanted.items() if name != "request-id"}
    assert unified(answer) == wanted | {"reset": str(next_month()), "overage-reset": str(next_month())}


async def test_a_soft_budget_never_looks_spent_to_the_client(gateway: Gateway) -> None:
    """It goes on: a utilization of 1 would mean that it does not."""
    await gateway.spend("soft", 0.2)
    told = unified(await gateway.simulate("soft", "hello", ""))
    assert (told["status"], told["overage-utilization"]) == ("allowed_warning", "0.99")
    assert told["overage-surpassed-threshold"] == "0.95"


async def test_a_success_far_from_the_cap_says_so(gateway: Gateway) -> None:
    told = unified(await gateway.simulate("dev", "hello", ""))
    assert (told["status"], told["overage-status"], told["overage-utilization"]) == ("allowed", "allowed", "0.00")
    assert "overage-surpassed-threshold" not in told


async def test_a_key_without_budgets_is_told_of_none(gateway: Gateway) -> None:
    answer = await gateway.simulate("unbudgeted", "hello", "")
    assert (answer.status, unified(answer)) == (200, {})


async def test_a_burst_of_token_counts_passes_while_the_budget_is_spent(gateway: Gateway) -> None:
    """What `/context` sends: 28 at once. A failed one becomes a billed call on the older client."""
    burst = recorded("06-count-tokens-197").bytes_for(secret("spent"))
    answers = await asyncio.gather(*(gateway.send(burst) for _ in range(28)))
    assert [answer.status for answer in answers] == [200] * 28
    assert all(json.loads(answer.body)["input_tokens"] > 0 for answer in answers)
    rows = await gateway.requests(28, operation="count_tokens", key="spent")
    assert {(row["verdict"], row["attempt_count"]) for row in rows} == {("free", 0)}


async def test_money_held_by_calls_in_flight_is_a_wait_and_no_end(gateway: Gateway) -> None:
    """A busy budget answers like a rate limit: at most 60 s, and the client goes on alone."""
    ask = message("hold it", max_tokens=45_000, model="claude-sonnet-5-5")  # 0.45 of the 0.50
    async with RawClient(gateway.port) as holder:
        holder.send(request("busy", ask, [("x-simulator", "late_headers=1.5,output_tokens=1")]))
        refused = await gateway.answered(429, "busy", ask, ("x-simulator", "output_tokens=1"))
        error, wait = error_of(refused), int(refused.header("retry-after") or 0)
        assert (refused.status, error["type"]) == (429, "rate_limit_error")
        assert 1 <= wait <= 60
        assert refused.header("x-should-retry") is None
        assert f"({wait} s)" in error["message"]
        assert (await holder.answer()).status == 200
    await gateway.answered(200, "busy", ask, ("x-simulator", "output_tokens=1"))


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/api/oauth/usage"])
async def test_a_key_that_is_not_known_is_refused_for_good_everywhere(gateway: Gateway, path: str) -> None:
    method = "POST" if "messages" in path else "GET"
    answer = await gateway.post("stranger", message("hi"), path=path, method=method)
    assert (answer.status, error_of(answer)["type"]) == (401, "authentication_error")
    assert answer.header("x-should-retry") == b"false"


async def test_a_revoked_key_is_told_so_and_refused_for_good(gateway: Gateway) -> None:
    await asyncio.to_thread(gateway.up.api.post, "/api/v1/keys/revoked/revoke")
    answer = await gateway.answered(401, "revoked", message("hi"))
    assert "is revoked" in error_of(answer)["message"]
    assert answer.header("x-should-retry") == b"false"


async def test_a_subscription_login_is_explained_and_goes_nowhere(gateway: Gateway) -> None:
    before = len(bill_lines(gateway.up.bill)), len(gateway.upstream.requests)
    oauth = ("anthropic-beta", "claude-code-20250219,oauth-2025-04-20")
    for path in ("/v1/messages?beta=true", "/v1/messages/count_tokens?beta=true"):
        token = ("Authorization", "Bearer sk-ant-oat01-dummy")
        answer = await gateway.post("", message("hi"), token, oauth, path=path)
        assert (answer.status, answer.header("x-should-retry")) == (401, b"false")
        assert "subscription" in error_of(answer)["message"]
        assert "ANTHROPIC_AUTH_TOKEN" in error_of(answer)["message"]
    assert (len(bill_lines(gateway.up.bill)), len(gateway.upstream.requests)) == before


async def test_a_model_that_policy_denies_names_the_others_and_costs_nothing(gateway: Gateway) -> None:
    answers = [await gateway.post("haiku", message("hi", model="claude-opus-5-5")) for _ in range(6)]
    for answer in answers:
        error = error_of(answer)
        assert (answer.status, error["type"]) == (400, "invalid_request_error")
        assert "claude-opus-5-5" in error["message"]
        assert "claude-haiku-*" in error["message"]
        assert answer.header("x-should-retry") is None
    rows = await gateway.requests(6, key="haiku", status=400)
    assert {(row["verdict"], row["reason"], row["attempt_count"]) for row in rows} == {
        ("rejected", "model_not_allowed", 0)
    }
    allowed = await gateway.post("haiku", message("hi", model="claude-haiku-4-5-20251001"))
    assert allowed.status == 200
    entries = await gateway.entries(key="haiku")
    assert [entry["request_id"] for entry in entries] == [our_id(allowed)]


async def test_the_model_list_is_what_the_key_may_use(gateway: Gateway) -> None:
    asked = recorded("07-models-discovery-197")
    at = time.monotonic()
    everything, some = [json.loads((await gateway.send(asked.bytes_for(secret(key)))).body) for key in ("dev", "haiku")]
    assert time.monotonic() - at < 3
    names = {model["id"] for model in everything["data"]}
    assert {model["id"] for model in some["data"]} == {name for name in names if "haiku" in name}
    assert all("claude" in name for name in names)
    for model in some["data"]:
        assert {"type", "id", "display_name", "created_at"} <= set(model)
    assert {"has_more", "first_id", "last_id"} <= set(some)


async def test_a_model_that_is_looked_up_is_there_for_who_may_use_it(gateway: Gateway) -> None:
    path = "/v1/models/claude-opus-5-5"
    assert json.loads((await gateway.post("dev", b"", path=path, method="GET")).body)["id"] == "claude-opus-5-5"
    denied = await gateway.post("haiku", b"", path=path, method="GET")
    assert (denied.status, "no model 'claude-opus-5-5'" in error_of(denied)["message"]) == (404, True)


async def test_the_balance_is_told_as_the_client_reads_it(gateway: Gateway) -> None:
    answer = await gateway.post("spent", b"", path="/api/oauth/usage", method="GET")
    wanted = ANSWERS["usage_endpoint"]["body"]
    told = json.loads(answer.body)
    assert answer.status == 200
    assert set(wanted["extra_usage"]) <= set(told["extra_usage"])
    assert told["extra_usage"] | {"monthly_limit": 0} == wanted["extra_usage"] | {
        "monthly_limit": 0,
        "used_credits": 12,  # cents, rounded up
    }
    [limit] = told["limits"]
    assert set(wanted["limits"][0]) <= set(limit)
    assert (limit["group"], limit["percent"], limit["is_active"]) == ("monthly", 113, True)


async def test_a_storm_of_retries_is_seen_as_one_request(gateway: Gateway) -> None:
    """Eleven posts with the same bytes, as the client sends them: one request, ten repeats, in the log and the metric."""
    before = await _repeats(gateway)
    session = ("X-Claude-Code-Session-Id", "00000000-0000-4000-8000-00000000abcd")
    storm = message("storm")
    for _ in range(11):
        answer = await gateway.post("dev", storm, session, ("x-simulator", "status=429,retry_after=7"))
        assert (answer.status, answer.header("retry-after")) == (429, b"7")
    rows = await gateway.requests(11, session_id=session[1])
    assert sorted(row["repeat"] for row in rows) == [False] + [True] * 10
    assert await _repeats(gateway) == before + 10
    other_agent = ("X-Claude-Code-Agent-Id", "a1")
    answer = await gateway.post("dev", storm, session, other_agent)
    assert not (await gateway.request_row(answer))["repeat"]


async def _repeats(gateway: Gateway) -> float:
    ready = json.loads((gateway.up.data_dir / "run" / "edge.json").read_text())
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{ready['ports']['http']}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("sluicegate_edge_repeats_total "))
