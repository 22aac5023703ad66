"""Refusals: the sentence, the status, and the headers that make a client stop or go on."""

import json
from typing import Any

import msgspec
import pytest

from services.edge.core import denials, refusals
from services.edge.core.blocks import Blocks
from services.edge.core.formats import FORMATS, Answer, Anthropic
from services.edge.core.formats.anthropic import STATUS
from services.edge.core.refusals import Refusal
from shared.contracts.attribution import Principal
from shared.contracts.budget import Decision, Denied, Standing
from shared.contracts.config import BudgetRule, ConfigChanged, Key, Provider, ProviderConfig, Team
from shared.directory import Directory
from shared.errors import Rejected, Unavailable
from tests.fixtures.attempts import GRANTED

NOW = 1_795_000_000_000_000
RESET = 1_796_083_200_000_000  # 2026-12-01T00:00:00Z
DENIED = Denied(
    budget_id="team:T:month",
    reason="spent",
    limit_nano_usd=500_000_000_000,
    spent_nano_usd=500_000_000_000,
    held_nano_usd=0,
    need_nano_usd=350_000_000,
    input_bound=1000,
    resets_at=RESET,
    retry_after_s=99,
    contact="#llm-budget",
    owner_epoch=1,
)


def directory() -> Directory:
    made = Directory()
    key = Key(uid="K", org="O", customer="C", team="T", id="dev", providers=(ProviderConfig(uid="PC", provider="P"),))
    provider = Provider(uid="P", org="O", name="anthropic", kind="anthropic", base_url="http://p")
    puts = (Team(uid="T", org="O", customer="C", id="payments"), key, provider)
    made.apply(ConfigChanged(config_rev=1, at=NOW, actor="t", puts=puts))
    return made


def refusal(**fields: Any) -> Refusal:
    denied = msgspec.structs.replace(DENIED, **fields)
    return denials.refusal(denied, directory(), NOW, model="claude-x", stream=False)


def answer(refused: Refusal) -> tuple[Answer, dict[bytes, bytes], dict[str, Any]]:
    made = FORMATS["anthropic"].render(refused, "req_1")
    return made, dict(made.headers), json.loads(made.body)


def test_a_spent_budget_is_told_as_the_contract_says() -> None:
    made, headers, body = answer(refusal())
    assert made.status == 429
    assert body == {
        "type": "error",
        "error": {
            "type": "billing_error",
            "message": "Budget exceeded: team 'payments' has used $500.00 of its $500.00 monthly budget; "
            "resets 2026-12-01 00:00 UTC. Ask #llm-budget for an increase.",
        },
        "request_id": "req_1",
    }
    assert headers == {
        b"content-type": b"application/json",
        b"request-id": b"req_1",
        b"retry-after": b"1083200",
        b"x-should-retry": b"false",
        b"anthropic-ratelimit-unified-status": b"rejected",
        b"anthropic-ratelimit-unified-reset": b"1796083200",
        b"anthropic-ratelimit-unified-overage-reset": b"1796083200",
        b"anthropic-ratelimit-unified-overage-utilization": b"1.00",
        b"anthropic-ratelimit-unified-overage-surpassed-threshold": b"1",
        b"anthropic-ratelimit-unified-overage-period": b"monthly",
        b"anthropic-ratelimit-unified-overage-disabled-reason": b"org_spend_cap_reached",
        b"anthropic-ratelimit-unified-overage-scope": b"group_pool",
    }


def test_a_request_that_is_too_dear_for_what_is_left_is_told_the_way_out() -> None:
    message = refusal(spent_nano_usd=499_800_000_000, need_nano_usd=350_010_000).message
    assert "has used $499.80 of its $500.00 monthly budget: $0.20 is left" in message
    assert "this request could cost $0.3501 (lower max_tokens, or stream)" in message


def test_a_stream_is_told_what_it_could_cost_and_no_way_out_that_it_has_taken() -> None:
    denied = msgspec.structs.replace(DENIED, spent_nano_usd=499_800_000_000, need_nano_usd=350_010_000)
    message = denials.refusal(denied, directory(), NOW, model="claude-x", stream=True).message
    assert "$0.20 is left, and this request could cost $0.3501; resets" in message


def test_a_conversation_that_was_just_cut_is_told_so() -> None:
    message = refusal(spent_nano_usd=499_000_000_000, need_nano_usd=350_010_000).message
    assert "$1.00 is left, at which an answer of this conversation was just cut; resets" in message


def test_a_busy_budget_lets_the_client_wait_by_itself() -> None:
    made, headers, body = answer(
        refusal(reason="busy", spent_nano_usd=1, held_nano_usd=3_500_000_000, retry_after_s=300)
    )
    assert (made.status, body["error"]["type"]) == (429, "rate_limit_error")
    assert headers[b"retry-after"] == b"60"
    assert b"x-should-retry" not in headers
    assert "$3.50 is held" in body["error"]["message"]
    assert not any(name.startswith(b"anthropic-ratelimit") for name in headers)


def rate_limited(limit: str, **fields: Any) -> Refusal:
    """As the owner says it; limit: `requests_per_minute`, with a pattern behind a colon."""
    known: dict[str, Any] = {"rate_limit": limit.partition(":")[0], "rate_most": 20, "rate_used": 20, "rate_asked": 1}
    return refusal(budget_id=f"team:T:{limit}", reason="rate_limited", **(known | {"retry_after_s": 37} | fields))


@pytest.mark.parametrize(
    ("refused", "wait", "message"),
    [
        (
            rate_limited("requests_per_minute"),
            b"37",
            "Rate limit reached: team 'payments' has used 20 of its 20 requests per minute; retry at 11:08 UTC (37 s).",
        ),
        (
            rate_limited("requests_per_hour:claude-opus-*", retry_after_s=2_000),
            b"2000",
            "Rate limit reached: team 'payments' has used 20 of its 20 requests per hour for claude-opus-*; "
            "retry at 11:40 UTC (2000 s).",
        ),
        (
            rate_limited("concurrent_requests", retry_after_s=3),
            b"3",
            "Rate limit reached: team 'payments' has used 20 of its 20 concurrent requests; retry at 11:07 UTC (3 s).",
        ),
        (
            rate_limited("tokens_per_minute", rate_most=100_000, rate_used=98_500, rate_asked=12_000),
            b"37",
            "Rate limit reached: team 'payments' has used 98,500 of its 100,000 tokens per minute, "
            "and this request may take 12,000; retry at 11:08 UTC (37 s).",
        ),
    ],
)
def test_a_rate_limit_says_how_full_it_is_and_when_to_come_back(refused: Refusal, wait: bytes, message: str) -> None:
    made, headers, body = answer(refused)
    assert (made.status, body["error"]["type"]) == (429, "rate_limit_error")
    assert headers[b"retry-after"] == wait
    assert b"x-should-retry" not in headers, "up to 60 s the client waits, above it stops, by itself"
    assert not any(name.startswith(b"anthropic-ratelimit") for name in headers)
    assert body["error"]["message"] == message + " Ask #llm-budget for an increase."
    assert refused.code == "rate_limited"
    assert refused.limit is not None
    assert refused.limit.budget_id.startswith("team:T:")


def test_a_request_above_a_rate_limit_by_itself_is_refused_for_good() -> None:
    made, headers, body = answer(rate_limited("tokens_per_day", rate_used=0, rate_asked=1_000, retry_after_s=0))
    assert (made.status, body["error"]["type"]) == (429, "rate_limit_error")
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers
    assert body["error"]["message"] == (
        "Request too large: it may take 1,000 tokens, and the limit of team 'payments' is 20 tokens per day. "
        "Shorten it, or lower max_tokens. Ask #llm-budget for an increase."
    )


@pytest.mark.parametrize(
    ("fields", "status", "error_type", "says"),
    [
        ({"reason": "unpriced"}, 400, "invalid_request_error", "Model 'claude-x' has no price"),
        ({"reason": "unboundable"}, 400, "invalid_request_error", "cannot be bounded"),
        ({"reason": "unknown"}, 401, "authentication_error", "no longer exists"),
        ({"reason": "too_late"}, 503, "api_error", "nothing was sent"),
        ({"budget_id": "provider_config:PC:day"}, 429, "billing_error", "provider 'anthropic' has used"),
        (
            {"budget_id": "key:K:total", "resets_at": 0},
            429,
            "billing_error",
            "key 'dev' has used $500.00 of its $500.00 total",
        ),
        ({"budget_id": "org:gone:week:extra"}, 429, "billing_error", "the organisation has used"),
    ],
)
def test_each_denial_has_its_status_and_sentence(
    fields: dict[str, Any], status: int, error_type: str, says: str
) -> None:
    made, headers, body = answer(refusal(**fields))
    assert (made.status, body["error"]["type"]) == (status, error_type)
    assert says in body["error"]["message"]
    assert "\n" not in body["error"]["message"]
    assert int(headers.get(b"retry-after", b"1")) >= 1


@pytest.mark.parametrize(
    ("budget_id", "text"),
    [
        ("team:T:month", "at what was left of the monthly budget of team 'payments'. Ask #payments for an increase."),
        ("key:K:day:tests", "at what was left of the daily budget of key 'dev'. Ask #payments for an increase."),
        ("", "at what was left. Ask #payments for an increase."),
    ],
)
def test_a_stream_that_is_cut_names_the_budget(budget_id: str, text: str) -> None:
    made = directory()
    team = Team(uid="T", org="O", customer="C", id="payments", contact="#payments")
    made.apply(ConfigChanged(config_rev=2, at=NOW, actor="t", puts=(team,)))
    principal = Principal(org="O", customer="C", team="T", key="K")
    assert denials.cut_off(budget_id, principal, made) == f"Budget exceeded: the answer was cut {text}"


def test_a_stream_that_no_budget_refused_is_cut_in_the_name_of_the_one_that_made_its_hold_small() -> None:
    made = directory()
    budgets = (
        BudgetRule(id="team:T:day", limit_nano_usd=1, period="day", mode="soft"),
        BudgetRule(id="team:T:week", limit_nano_usd=1, period="week", at_cap="finish"),
        BudgetRule(id="team:T:month", limit_nano_usd=1, period="month"),
    )
    team = Team(uid="T", org="O", customer="C", id="payments", budgets=budgets)
    made.apply(ConfigChanged(config_rev=2, at=NOW, actor="t", puts=(team,)))
    principal = Principal(org="O", customer="C", team="T", key="K")
    fullest = [
        Standing(budget_id=rule.id, period=rule.period, utilization_ppm=9, surpassed_ppm=0, resets_at=0)
        for rule in budgets
    ]
    expected = msgspec.structs.replace(GRANTED, standings=tuple(fullest))
    assert denials.cutting_budget(expected, principal, made) == "team:T:month"
    limited = msgspec.structs.replace(expected, limited_by="key:K:day")
    assert denials.cutting_budget(limited, principal, made) == "key:K:day"
    assert denials.cutting_budget(GRANTED, principal, made) == ""


@pytest.mark.parametrize(
    "reason", ["spent", "busy", "unpriced", "unboundable", "unknown", "too_late", "one of tomorrow"]
)
def test_no_denial_is_ever_a_403_or_a_404(reason: str) -> None:
    """With one the client asks its user to log in, or hides our sentence."""
    made, _, _ = answer(refusal(reason=reason))
    assert made.status in (400, 401, 429, 503)


def test_no_refusal_is_ever_a_403_and_only_an_unknown_operation_a_404() -> None:
    assert {reason for reason, (status, _) in STATUS.items() if status in (403, 404)} == {"not_found"}


@pytest.mark.parametrize(
    ("refused", "status", "retry"),
    [
        (Refusal(reason="authentication", code="c", message="m"), 401, b"false"),
        (refusals.not_found("POST", "/v1/files?x=1"), 404, None),
        (refusals.too_large(32 << 20), 413, None),
        (refusals.rejected(Rejected("invalid_request_error", "bad")), 400, None),
        (refusals.rejected(Rejected("request_too_large", "big", 413)), 413, None),
        (refusals.unavailable(Unavailable("budget", 2)), 503, None),
        (refusals.spool_failed(), 503, None),
        (refusals.upstream_unreachable("anthropic"), 503, None),
        (refusals.credential_missing("anthropic", "env:ANTHROPIC_API_KEY"), 503, b"false"),
        (refusals.upstream_redirected("anthropic"), 503, b"false"),
        (refusals.no_such_model("claude-x"), 404, None),
    ],
)
def test_only_what_time_can_mend_is_retried(refused: Refusal, status: int, retry: bytes | None) -> None:
    made, headers, body = answer(refused)
    assert made.status == status
    assert headers.get(b"x-should-retry") == retry
    assert (b"retry-after" in headers) is (status == 503 and retry is None)
    assert Anthropic().error_type(refused) == body["error"]["type"]


def test_a_missing_credential_is_named_by_its_reference() -> None:
    assert "env:ANTHROPIC_API_KEY" in refusals.credential_missing("anthropic", "env:ANTHROPIC_API_KEY").message


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (500_000_000, "$0.50"),
        (123_450_000, "$0.1234"),
        (5_009_999_999, "$5.00"),
        (1, "$0.00"),
        (-2_500_000_000, "-$2.50"),
    ],
)
def test_dollars_are_rounded_down_unless_asked(nano: int, text: str) -> None:
    assert denials.dollars(nano) == text
    assert denials.dollars(5_001_000_000, up=True) == "$5.01"


def decision(version: int, state: str = "block", until: int = 0, epoch: int = 1) -> Decision:
    return Decision(scope="team:T", state=state, version=version, owner_epoch=epoch, until=until, denied=DENIED)


def test_a_block_holds_until_it_is_lifted_or_lapses() -> None:
    blocks, path = Blocks(), Principal(org="O", team="T", key="K")
    assert blocks.denied(path, NOW) is None
    assert blocks.apply(decision(5))
    assert blocks.denied(path, NOW) == DENIED
    assert blocks.denied(Principal(org="O", team="other"), NOW) is None
    assert blocks.apply(decision(6, until=NOW + 10))
    assert blocks.denied(path, NOW + 9) == DENIED
    assert blocks.denied(path, NOW + 10) is None
    assert blocks.apply(decision(7, "unblock"))
    assert blocks.denied(path, NOW) is None


def test_an_older_decision_changes_nothing() -> None:
    blocks, path = Blocks(), Principal(team="T")
    assert blocks.apply(decision(7, "unblock"))
    assert not blocks.apply(decision(6))
    assert not blocks.apply(decision(7))
    assert blocks.denied(path, NOW) is None
    assert (blocks.apply(decision(1, epoch=2)), blocks.version) == (True, 7)
