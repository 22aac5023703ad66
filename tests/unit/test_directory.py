"""The organisation folded from change sets."""

import msgspec

from shared.contracts.attribution import Principal
from shared.contracts.config import (
    BudgetRule,
    ConfigChanged,
    Customer,
    Entity,
    Key,
    Org,
    Provider,
    ProviderConfig,
    Secret,
    Team,
)
from shared.directory import Directory, allows
from shared.lifetimes import Lifetime

ORG = Org(uid="o", id="default", contact="platform@acme.example")
CUSTOMER = Customer(uid="c", org="o", id="acme", tags={"a": "customer", "b": "customer"})
TEAM = Team(uid="t", org="o", customer="c", id="platform", tags={"b": "team"})
PROVIDER = Provider(uid="p", org="o", name="anthropic", kind="anthropic", base_url="https://api.anthropic.com")


def rule(scope: str) -> BudgetRule:
    return BudgetRule(id=f"{scope}:month", limit_nano_usd=1, period="month")


KEY = Key(
    uid="k",
    org="o",
    customer="c",
    team="t",
    id="dev",
    secrets=(Secret(id="s", hash=b"h", hint="vk-1"),),
    budgets=(rule("key:k"),),
    providers=(ProviderConfig(uid="pc", provider="p", budgets=(rule("provider_config:pc"),)),),
)


def changed(rev: int, *puts: Entity, deletes: tuple[str, ...] = (), more: bool = False) -> ConfigChanged:
    return ConfigChanged(config_rev=rev, at=rev, actor="test", puts=puts, deletes=deletes, more=more)


def full() -> Directory:
    directory = Directory()
    directory.apply(changed(1, ORG, CUSTOMER, TEAM, KEY, PROVIDER))
    return directory


def test_a_secret_finds_its_key_until_the_key_is_replaced_or_deleted() -> None:
    directory = full()
    assert directory.key_of_secret(b"h") == (KEY, KEY.secrets[0])
    directory.apply(changed(2, deletes=("k",)))
    assert directory.key_of_secret(b"h") is None


def test_a_change_set_in_parts_applies_as_a_whole() -> None:
    directory = Directory()
    assert not directory.apply(changed(1, ORG, more=True))
    assert not directory.entities
    assert directory.apply(changed(1, CUSTOMER))
    assert set(directory.entities) == {"o", "c"}


def test_a_change_set_that_broke_off_leaves_nothing() -> None:
    directory = Directory()
    directory.apply(changed(1, ORG, more=True))
    directory.apply(changed(2, CUSTOMER))
    assert set(directory.entities) == {"c"}


def test_an_old_revision_changes_nothing() -> None:
    directory = full()
    assert not directory.apply(changed(1, deletes=("k",)))
    assert "k" in directory.entities


def test_the_nearest_tag_wins() -> None:
    assert full().principal(KEY).tags == {"a": "customer", "b": "team"}


def test_the_rules_of_a_path_come_widest_first() -> None:
    directory = full()
    principal = directory.principal(KEY, "pc")
    assert [scope for scope, _, _ in directory.rules_on(principal)] == ["key", "provider_config"]
    assert {r.id for *_, r in directory.all_rules()} == {"key:k:month", "provider_config:pc:month"}


def test_the_nearest_contact_is_named() -> None:
    assert full().contact(Principal(org="o", customer="c", team="t", key="k")) == "platform@acme.example"


def test_an_empty_list_of_patterns_allows_all_models() -> None:
    assert allows((), "claude-opus-5-5")
    assert allows(("claude-haiku-*", "claude-sonnet-*"), "claude-sonnet-5-5")
    assert not allows(("claude-haiku-*",), "claude-sonnet-5-5")


def test_two_keys_may_exchange_their_secrets_in_one_change_set() -> None:
    directory = full()
    other = msgspec.structs.replace(KEY, uid="k2", id="other", secrets=(Secret(id="s", hash=b"h2", hint="vk-2"),))
    directory.apply(changed(2, other))
    mine, theirs = KEY.secrets, other.secrets
    directory.apply(
        changed(3, msgspec.structs.replace(KEY, secrets=theirs), msgspec.structs.replace(other, secrets=mine))
    )
    found = [directory.key_of_secret(secret) for secret in (b"h2", b"h")]
    assert [key.uid for key, _ in filter(None, found)] == ["k", "k2"]


def test_a_budget_is_as_old_as_its_calendar_and_remembers_its_limits() -> None:
    found = Directory()

    def team(at: int, *budgets: BudgetRule, more: bool = False, rev: int = 0) -> None:
        made = Team(uid="T", org="O", customer="C", id="platform", budgets=budgets)
        found.apply(ConfigChanged(config_rev=rev or at, at=at, actor="test", puts=(made,), more=more))

    day = BudgetRule(id="team:T:day", limit_nano_usd=5, period="day")
    team(1, day)
    team(2, msgspec.structs.replace(day, limit_nano_usd=9), rev=2, more=True)  # broken off: it never came into force
    team(3, day)
    team(4, msgspec.structs.replace(day, mode="soft"))
    assert found.lifetimes.of_budget(day.id) == Lifetime(1, ((1, 5),))
    team(5, msgspec.structs.replace(day, limit_nano_usd=7))
    assert found.lifetimes.of_budget(day.id) == Lifetime(1, ((1, 5), (5, 7)))
    team(6, msgspec.structs.replace(day, limit_nano_usd=7, timezone="Asia/Tokyo"))
    assert found.lifetimes.of_budget(day.id) == Lifetime(6, ((6, 7),))
    team(7)
    team(8, day)
    assert found.lifetimes.of_budget(day.id).since == 8
    assert found.lifetimes.made_at == {"T": 1}
    found.apply(ConfigChanged(config_rev=9, at=9, actor="test", deletes=("T",)))
    assert (found.lifetimes.of_budget(day.id), found.lifetimes.made_at) == (Lifetime(), {})


def test_of_a_budget_that_is_changed_all_the_time_the_newest_limits_are_kept() -> None:
    found = Directory()
    for at in range(1, 200):
        rule = BudgetRule(id="team:T:day", limit_nano_usd=at, period="day")
        made = Team(uid="T", org="O", customer="C", id="platform", budgets=(rule,))
        # the clock is set back half-way
        found.apply(ConfigChanged(config_rev=at, at=at if at < 100 else at - 50, actor="test", puts=(made,)))
    limits = found.lifetimes.of_budget("team:T:day").limits
    assert (len(limits), limits[-1]) == (64, (149, 199))
    assert list(limits) == sorted(limits)
