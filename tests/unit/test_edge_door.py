"""The door, the table of operations, the headers and the model policy."""

import hashlib
from typing import Any

import msgspec
import pytest

from services.edge.core import models, policy, spending
from services.edge.core.door import Entered, enter
from services.edge.core.facts import Facts, read_facts
from services.edge.core.headers import (
    budget_headers,
    index,
    request_headers_for_upstream,
    response_headers_for_client,
)
from services.edge.core.operations import resolve
from services.edge.core.refusals import Refusal
from shared.contracts.budget import Balance, Standing
from shared.contracts.config import (
    BudgetRule,
    ConfigChanged,
    Credential,
    Customer,
    Entity,
    Key,
    ModelRateLimits,
    Org,
    PriceOverride,
    Provider,
    ProviderConfig,
    RateLimits,
    Secret,
    Team,
)
from shared.contracts.pricing import RateCard, Tokens
from shared.directory import Directory

NOW = 1_700_000_000_000_000
KEY = Key(
    uid="K",
    org="O",
    customer="C",
    team="T",
    id="dev",
    secrets=(Secret(id="1", hash=hashlib.sha256(b"vk-good").digest(), hint="vk"),),
)
PROVIDER = Provider(
    uid="P",
    org="O",
    name="anthropic",
    kind="anthropic",
    base_url="http://p",
    credentials=(Credential(id="main", ref="env:X"),),
)


def directory(key: Key = KEY, *others: Entity) -> Directory:
    made = Directory()
    puts = (
        Org(uid="O", id="default"),
        Customer(uid="C", org="O", id="acme"),
        Team(uid="T", org="O", customer="C", id="payments"),
        key,
        *(others or (PROVIDER,)),
    )
    made.apply(ConfigChanged(config_rev=1, at=NOW, actor="test", puts=puts))
    return made


def changed(**fields: Any) -> Key:
    return msgspec.structs.replace(KEY, **fields)


def facts(model: str = "claude-opus-5-5", session: bytes = b"s") -> Facts:
    body = msgspec.json.encode({"model": model, "messages": []})
    return read_facts(body, {b"x-claude-code-session-id": session})


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer vk-good"},
        {b"authorization": b"bearer  vk-good "},
        {b"x-api-key": b"vk-good"},
        {b"authorization": b"Bearer vk-good", b"x-api-key": b"vk-good"},
        {b"authorization": b"Bearer vk-good", b"x-api-key": b"vk-other"},
        {b"authorization": b"Basic xyz", b"x-api-key": b"vk-good"},
    ],
)
def test_a_good_secret_enters_by_either_header(headers: dict[bytes, bytes]) -> None:
    entered = enter(headers, directory(), NOW)
    assert isinstance(entered, Entered)
    assert (entered.key.uid, entered.principal.team, entered.principal.org) == ("K", "T", "O")


@pytest.mark.parametrize(
    ("key", "headers", "says"),
    [
        (KEY, {}, "No API key"),
        (KEY, {b"x-api-key": b"vk-bad"}, "Unknown API key"),
        (KEY, {b"authorization": b"Bearer vk-bad", b"x-api-key": b"vk-good"}, "Unknown API key"),
        (KEY, {b"authorization": b"Bearer vk-good, Bearer vk-good"}, "Unknown API key"),
        (KEY, {b"authorization": b"Bearer x", b"anthropic-beta": b"a,oauth-2025-04-20"}, "subscription"),
        (changed(revoked_at=NOW), {b"x-api-key": b"vk-good"}, "revoked"),
        (
            changed(secrets=(msgspec.structs.replace(KEY.secrets[0], valid_from=NOW + 1),)),
            {b"x-api-key": b"vk-good"},
            "not valid yet",
        ),
        (
            changed(secrets=(msgspec.structs.replace(KEY.secrets[0], valid_until=NOW),)),
            {b"x-api-key": b"vk-good"},
            "expired",
        ),
    ],
)
def test_anything_else_stays_outside_and_is_told_why(key: Key, headers: dict[bytes, bytes], says: str) -> None:
    refusal = enter(headers, directory(key), NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, says in refusal.message) == ("authentication", True)


@pytest.mark.parametrize(
    ("method", "path", "handling", "operation", "upstream"),
    [
        ("POST", "/v1/messages", "governed", "messages", "/v1/messages"),
        ("POST", "/anthropic/v1/messages?beta=true&x=/v1", "governed", "messages", "/v1/messages?beta=true&x=/v1"),
        ("POST", "/v1/messages/count_tokens?beta=true", "free", "count_tokens", "/v1/messages/count_tokens?beta=true"),
        ("GET", "/anthropic/v1/models?limit=1000", "local", "models", "/v1/models?limit=1000"),
        ("GET", "/v1/models/claude-opus-5-5", "local", "model", "/v1/models/claude-opus-5-5"),
        ("GET", "/api/oauth/usage", "local", "usage", "/api/oauth/usage"),
        ("HEAD", "/", "local", "probe", ""),
        ("HEAD", "/anthropic", "local", "probe", ""),
        ("HEAD", "/anthropic/api/hello", "local", "probe", ""),
        ("HEAD", "/v1/messages", "denied", "", ""),
        ("GET", "/v1/messages", "denied", "", ""),
        ("POST", "/v1/messages/", "denied", "", ""),
        ("POST", "//v1/messages", "denied", "", ""),
        ("POST", "/v1/%6dessages", "denied", "", ""),
        ("POST", "/v1/messages\n", "denied", "", ""),
        ("POST", "/v1/messages/batches", "denied", "", ""),
        ("POST", "/v1/files", "denied", "", ""),
        ("POST", "/openai/v1/messages", "denied", "", ""),
        ("POST", "/anthropic/anthropic/v1/messages", "denied", "", ""),
        ("HEAD", "/bedrock", "denied", "", ""),
    ],
)
def test_operations_are_a_closed_table(method: str, path: str, handling: str, operation: str, upstream: str) -> None:
    match = resolve(method, path, {})
    assert (match.handling, match.operation, match.upstream_path) == (handling, operation, upstream)
    assert match.authenticated is (operation != "probe")


def test_requests_pass_as_open_lists_without_credentials_and_hop_by_hop() -> None:
    sent = [
        (b"Host", b"gateway"),
        (b"Authorization", b"Bearer vk-good"),
        (b"X-Api-Key", b"vk-good"),
        (b"Cookie", b"a=b"),
        (b"Connection", b"keep-alive, X-Private"),
        (b"X-Private", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Proxy-Authorization", b"x"),
        (b"X-Sluicegate-Debug", b"1"),
        (b"Accept-Encoding", b"gzip, br"),
        (b"Anthropic-Beta", b"one"),
        (b"anthropic-beta", b"invented-2027"),
        (b"X-Novel", b"kept"),
    ]
    kept = request_headers_for_upstream(sent, (b"x-api-key", b"sk-real"))
    assert kept == [
        (b"Anthropic-Beta", b"one"),
        (b"anthropic-beta", b"invented-2027"),
        (b"X-Novel", b"kept"),
        (b"accept-encoding", b"identity"),
        (b"x-api-key", b"sk-real"),
    ]


def test_answers_pass_without_what_describes_the_shared_key() -> None:
    received = [
        (b"Content-Type", b"text/event-stream"),
        (b"Retry-After", b"7"),
        (b"x-should-retry", b"true"),
        (b"request-id", b"req_up"),
        (b"Anthropic-Ratelimit-Requests-Remaining", b"4"),
        (b"Connection", b"close"),
        (b"Set-Cookie", b"a=b"),
    ]
    kept = response_headers_for_client(received, "req_ours", [(b"x-ours", b"1")])
    assert kept == [*received[:4], (b"x-ours", b"1")]
    assert (b"request-id", b"req_ours") in response_headers_for_client(received[:3], "req_ours", [])


def test_a_provider_cannot_speak_in_our_name() -> None:
    received = [(b"X-Sluicegate-Request-Id", b"forged"), (b"content-type", b"application/json")]
    kept = response_headers_for_client(received, "req_ours", [(b"x-sluicegate-request-id", b"req_ours")])
    assert [value for name, value in kept if name.lower() == b"x-sluicegate-request-id"] == [b"req_ours"]


def test_headers_that_repeat_are_read_as_one() -> None:
    assert index([(b"A", b"1"), (b"a", b"2"), (b"B", b"3")]) == {b"a": b"1, 2", b"b": b"3"}


@pytest.mark.parametrize(
    ("ppm", "status", "threshold", "shown"),
    [
        (570_000, b"allowed", None, b"0.57"),
        (769_999, b"allowed_warning", b"0.75", b"0.76"),
        (1_130_000, b"allowed_warning", b"0.95", b"0.99"),
    ],
)
def test_a_success_tells_how_full_the_budget_is(ppm: int, status: bytes, threshold: bytes | None, shown: bytes) -> None:
    standing = Standing(
        budget_id="b", period="month", utilization_ppm=ppm, surpassed_ppm=0, resets_at=1_796_083_200_000_000
    )
    found = dict(budget_headers((standing,)))
    prefix = b"anthropic-ratelimit-unified-"
    assert found[prefix + b"status"] == found[prefix + b"overage-status"] == status
    assert found.get(prefix + b"overage-surpassed-threshold") == threshold
    assert found[prefix + b"overage-utilization"] == shown
    assert found[prefix + b"reset"] == b"1796083200"
    assert budget_headers(()) == []


def attempts(key: Key, wanted: Facts, *providers: Provider) -> tuple[policy.Attempt, ...]:
    plan = policy.plan(directory(key, *providers), key, wanted)
    assert isinstance(plan, tuple)
    return plan


def test_the_plan_tries_the_keys_providers_in_its_order() -> None:
    other = msgspec.structs.replace(PROVIDER, uid="Q", name="other")
    key = changed(providers=(ProviderConfig(uid="cQ", provider="Q"), ProviderConfig(uid="cP", provider="P")))
    plan = attempts(key, facts(), PROVIDER, other)
    assert [(one.provider.uid, one.provider_config) for one in plan] == [("Q", "cQ"), ("P", "cP")]
    assert [one.provider.uid for one in attempts(KEY, facts(), PROVIDER, other)] == ["P", "Q"]


def test_a_provider_of_another_organisation_is_never_used() -> None:
    foreign = msgspec.structs.replace(PROVIDER, org="elsewhere")
    refusal = policy.plan(directory(KEY, foreign), KEY, facts())
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "misconfigured"


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-sonnet-5"])
def test_a_pattern_allows_a_model_with_or_without_its_date(model: str) -> None:
    assert attempts(changed(models=("claude-haiku-4-5", "claude-sonnet-*")), facts(model), PROVIDER)


def test_a_model_that_is_not_allowed_is_refused_naming_those_that_are() -> None:
    key = changed(models=("claude-haiku-*", "claude-sonnet-5"))
    refusal = policy.plan(directory(key), key, facts("claude-opus-5-5"))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "invalid"
    assert "claude-opus-5-5" in refusal.message
    assert "claude-haiku-*, claude-sonnet-5" in refusal.message


def test_a_providers_own_list_restricts_too() -> None:
    narrow = msgspec.structs.replace(PROVIDER, models=("claude-haiku-*",))
    refusal = policy.plan(directory(KEY, narrow), KEY, facts("claude-opus-5-5"))
    assert isinstance(refusal, Refusal)
    assert "claude-haiku-*" in refusal.message


def test_sessions_stay_with_a_credential_and_shares_follow_the_weights() -> None:
    pair = (
        Credential(id="a", ref="env:A", weight=3),
        Credential(id="b", ref="env:B", weight=1),
        Credential(id="c", ref="env:C", weight=0),
    )
    shared = msgspec.structs.replace(PROVIDER, credentials=pair)
    firsts = [attempts(KEY, facts(session=b"s%d" % n), shared)[0].credential.id for n in range(400)]
    assert 250 < firsts.count("a") < 350
    assert "c" not in firsts
    assert firsts[:50] == [attempts(KEY, facts(session=b"s%d" % n), shared)[0].credential.id for n in range(50)]


def test_a_hard_budget_anywhere_on_the_path_counts() -> None:
    soft = BudgetRule(id="key:K:month", limit_nano_usd=1, period="month", mode="soft")
    hard = BudgetRule(id="provider_config:cP:day", limit_nano_usd=1, period="day")
    key = changed(budgets=(soft,), providers=(ProviderConfig(uid="cP", provider="P", budgets=(hard,)),))
    made = directory(key)
    assert not policy.has_hard_budget(made, made.principal(key))
    assert policy.has_hard_budget(made, made.principal(key, "cP"))


def test_a_session_budget_is_a_hard_one() -> None:
    key = changed(session_budget_nano_usd=1)
    made = directory(key)
    assert policy.has_hard_budget(made, made.principal(key))


def test_a_rate_limit_on_the_path_needs_the_owner_too() -> None:
    key = changed(rate_limits=RateLimits(models={"claude-opus-*": ModelRateLimits(requests_per_day=1)}))
    made = directory(key)
    assert policy.has_hard_budget(made, made.principal(key))


def test_an_edge_that_cannot_ask_is_of_no_use_where_every_way_needs_the_owner() -> None:
    hard, soft = (
        BudgetRule(id=f"key:K:{mode}", limit_nano_usd=1, period="day", mode=mode) for mode in ("hard", "soft")
    )
    strict, loose = changed(budgets=(hard,)), changed(uid="L", id="loose", secrets=(), budgets=(soft,))
    assert policy.needs_owner(directory(strict, PROVIDER))
    assert not policy.needs_owner(directory(strict, loose, PROVIDER)), "one key passes without"
    assert policy.needs_owner(
        directory(strict, changed(uid="L", id="l", secrets=(), providers=(), org="x"), PROVIDER)
    ), "a key without a provider passes nowhere"
    of_one = ProviderConfig(uid="cP", provider="P", budgets=(hard,))
    assert policy.needs_owner(directory(changed(providers=(of_one,)), PROVIDER))
    assert not policy.needs_owner(Directory()), "nobody waits for anything"


def test_what_is_remembered_of_the_policy_ends_with_the_organisation_it_was_decided_by() -> None:
    made = directory(KEY, PROVIDER)
    remembered = policy.Policy(made)
    plan = remembered.plan(KEY, facts())
    assert isinstance(plan, tuple) and remembered.plan(KEY, facts()) is plan
    assert not remembered.has_hard_budget(made.principal(KEY))
    assert not remembered.needs_owner()
    strict = changed(models=("claude-none",), session_budget_nano_usd=1)
    made.apply(ConfigChanged(config_rev=made.config_rev + 1, at=NOW, actor="test", puts=(strict,)))
    assert isinstance(remembered.plan(strict, facts()), Refusal)
    assert remembered.has_hard_budget(made.principal(strict))
    assert remembered.needs_owner()


def test_the_policy_remembers_no_more_than_so_much() -> None:
    remembered = policy.Policy(directory(KEY, PROVIDER))
    for number in range(policy.REMEMBERED_MOST + 10):
        remembered.plan(KEY, facts(session=b"s%d" % number))
    assert len(remembered._plans) <= policy.REMEMBERED_MOST + 1


CARDS = tuple(
    RateCard(id=model, provider="anthropic", models=(model,), rates=Tokens(input=1), valid_from=start, valid_until=end)
    for model, start, end in (
        ("claude-opus-4-8", "2022-01-01T00:00:00Z", None),
        ("claude-haiku-4-5-20251001", "2023-01-01T00:00:00Z", None),
        ("claude-old-1", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"),
    )
)


def test_the_model_list_shows_what_the_key_may_use() -> None:
    key = changed(models=("claude-opus-*", "our-tuned-model", "claude-old-*"))
    tuned = PriceOverride(uid="X", org="O", models=("our-tuned-model",), rates={"input": 1})
    page = msgspec.json.decode(models.listing(directory(key, PROVIDER, tuned), key, CARDS, NOW))
    assert [(one["id"], one["display_name"]) for one in page["data"]] == [
        ("claude-opus-4-8", "Claude Opus 4.8"),
        ("our-tuned-model", "Our Tuned Model"),
    ]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "claude-opus-4-8", "our-tuned-model")
    assert models.one(directory(key), key, CARDS, "claude-haiku-4-5-20251001", NOW) is None
    assert models.one(directory(KEY), KEY, CARDS, "claude-haiku-4-5-20251001", NOW)


def test_what_is_left_is_told_in_cents() -> None:
    rule = BudgetRule(id="key:K:month", limit_nano_usd=4_000_000_000, period="month")
    key = changed(budgets=(rule,))
    asked = spending.asked(directory(key), key)
    assert asked is not None
    assert asked.budget_ids == ("key:K:month",)
    assert spending.asked(directory(), KEY) is None
    balance = Balance(
        budget_id=rule.id, scope="key", scope_uid="K", period="month", period_id="2026-11", mode="hard",
        limit_nano_usd=4_000_000_000, spent_nano_usd=4_530_000_000, held_nano_usd=0, resets_at=1_796_083_200_000_000,
    )  # fmt: skip
    usage = msgspec.json.decode(spending.usage([balance]))
    assert usage["extra_usage"] == {
        "is_enabled": True, "monthly_limit": 400, "used_credits": 453, "utilization": 113, "currency": "USD",
    }  # fmt: skip
    assert usage["limits"][0]["severity"] == "critical"
    assert msgspec.json.decode(spending.usage([]))["extra_usage"] == {"is_enabled": False}
