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
