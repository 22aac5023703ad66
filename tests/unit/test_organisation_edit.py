"""Single changes: entities made, changed and deleted one by one, keys rotated, budgets changed in force."""

import hashlib
import itertools

import msgspec
import pytest

from services.console import api
from services.console.core import actions, edit
from services.console.core.actions import Made
from services.console.core.changes import ChangeSet, messages
from services.console.core.organisation import diff, parse_organisation
from services.console.core.paths import find
from services.console.core.problem import Invalid
from services.console.core.views import Scopes
from services.console.core.views import key as key_view
from shared.contracts.budget import Balance
from shared.contracts.config import Customer, Entity, Key, PriceOverride, Provider, Team
from shared.directory import Directory

NOW = 1_000_000_000
DOCUMENT = b"""
providers: [{name: anthropic, kind: anthropic, base_url: "http://127.0.0.1:1", credential: "env:KEY"}]
prices: [{models: ["claude-*"], percent: -12, scope: "team:platform"}]
customers:
  - id: acme
    teams:
      - id: platform
        budgets: [{limit_usd: 50, period: month, timezone: Europe/Berlin, name: all}]
        keys:
          - id: dev
            secret: vk-fixed-for-the-tests
            budgets: [{limit_usd: 5, period: day}]
            providers: [{name: anthropic, budgets: [{limit_usd: 2, period: day}]}]
"""


class Bench:
    def __init__(self) -> None:
        self.directory = Directory()
        self._uids, self._secrets = itertools.count(1), itertools.count(1)
        self.made = Made(uid=self.uid, secret=self.secret, now=NOW)
        document = parse_organisation(DOCUMENT, is_json=False)
        self.commit(diff(self.directory, document, new_uid=self.uid, new_secret=self.secret, now=NOW))

    def uid(self) -> str:
        return f"U{next(self._uids):03}"

    def secret(self) -> str:
        return f"vk-{next(self._secrets):043}"

    def commit(self, changes: ChangeSet) -> ChangeSet:
        for part in messages(changes, self.directory.config_rev + 1, NOW, "test"):
            self.directory.apply(part)
        return changes

    def change(self, entity: Entity, **patch: object) -> ChangeSet:
        return self.commit(edit.change(self.directory, entity, dict(patch), self.uid))

    @property
    def key(self) -> Key:
        return find(self.directory, Key, "dev")

    @property
    def team(self) -> Team:
        return find(self.directory, Team, "platform")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refused(change: object) -> str:
    """The code and field of the refusal."""
    assert callable(change)
    with pytest.raises(Invalid) as caught:
        change()
    return f"{caught.value.code} {caught.value.field}".strip()


def test_a_made_key_has_a_secret_told_once_and_belongs_to_the_console(bench: Bench) -> None:
    made = bench.commit(edit.create(bench.directory, api.KeyBody(id="ci", team="acme/platform"), bench.made))
    key = find(bench.directory, Key, "acme/platform/ci")
    assert key.managed_by == "console"
    assert (key.team, key.customer) == (bench.team.uid, bench.team.customer)
    assert hashlib.sha256(made.secrets[0].secret.encode()).digest() == key.secrets[0].hash
    body = api.KeyBody(id="ci", team="platform")
    assert refused(lambda: edit.create(bench.directory, body, bench.made)) == "id_taken id"
    stolen = api.KeyBody(id="ci2", team="platform", secret="vk-fixed-for-the-tests")
    assert refused(lambda: edit.create(bench.directory, stolen, bench.made)) == "secret_taken secret"
    orphan = api.KeyBody(id="ci", team="nobody")
    assert refused(lambda: edit.create(bench.directory, orphan, bench.made)) == "not_found team"


def test_a_patch_replaces_what_it_names_and_null_takes_it_back(bench: Bench) -> None:
    before = bench.key
    bench.change(before, owner="dev@acme.example", models=["claude-haiku-*"], session_budget_usd="1.5")
    after = bench.key
    assert (after.owner, after.models, after.session_budget_nano_usd) == (
        "dev@acme.example",
        ("claude-haiku-*",),
        1_500_000_000,
    )
    assert (after.secrets, after.budgets, after.providers) == (before.secrets, before.budgets, before.providers)
    assert (after.revision, after.managed_by) == (2, "file")
    bench.change(after, models=None, session_budget_usd=None)
    assert (bench.key.models, bench.key.session_budget_nano_usd) == ((), 0)
    assert edit.change(bench.directory, bench.key, {"owner": "dev@acme.example"}, bench.uid).empty


def test_a_patch_with_an_unknown_field_or_another_parent_is_refused(bench: Bench) -> None:
    assert refused(lambda: bench.change(bench.key, modls=[])) == "unknown_field modls"
    assert refused(lambda: bench.change(bench.key, team="data")) == "immutable_field team"
    assert refused(lambda: bench.change(bench.key, uid="U1")) == "unknown_field uid"
    assert refused(lambda: bench.change(bench.key, id=None)) == "missing_field id"


def test_a_renamed_team_keeps_its_uid_and_its_budgets(bench: Bench) -> None:
    before = bench.team
    bench.change(before, id="plattform")
    after = find(bench.directory, Team, "plattform")
    assert (after.uid, after.budgets) == (before.uid, before.budgets)
    assert find(bench.directory, Key, "acme/plattform/dev").uid == bench.key.uid


def test_providers_and_prices_change_too(bench: Bench) -> None:
    bench.change(find(bench.directory, Provider, "anthropic"), base_url="https://api.anthropic.com")
    assert find(bench.directory, Provider, "anthropic").credentials[0].ref == "env:KEY"
    bench.change(find(bench.directory, Provider, "anthropic"), credential="file:/run/key")
    assert [c.ref for c in find(bench.directory, Provider, "anthropic").credentials] == ["file:/run/key"]
    price = bench.directory.prices(bench.team.org)[0]
    bench.change(price, usd_per_million={"input": 3})
    after = find(bench.directory, PriceOverride, price.uid)
    assert (after.rates, after.percent_ppm, after.scope) == ({"input": 3_000_000}, 0, f"team:{bench.team.uid}")
    body = api.ProviderBody(name="anthropic", kind="anthropic", base_url="http://127.0.0.1:2")
    assert refused(lambda: edit.create(bench.directory, body, bench.made)) == "id_taken id"


def test_what_is_in_use_is_deleted_only_with_all_below_it(bench: Bench) -> None:
    customer = find(bench.directory, Customer, "acme")
    assert refused(lambda: edit.remove(bench.directory, customer, cascade=False)) == "in_use"
    provider = find(bench.directory, Provider, "anthropic")
    assert refused(lambda: edit.remove(bench.directory, provider, cascade=True)) == "in_use"
    gone = bench.commit(edit.remove(bench.directory, customer, cascade=True))
    assert {change.kind for change in gone.changes} == {"customer", "team", "key"}
    assert not any(isinstance(e, Customer | Team | Key) for e in bench.directory.entities.values())


def test_rotation_ends_the_old_secrets_after_the_overlap_and_drops_the_outlived(bench: Bench) -> None:
    bench.commit(actions.rotate(bench.directory, bench.key, 60, bench.made))
    old, fresh = bench.key.secrets
    assert (old.valid_until, fresh.valid_from, fresh.valid_until) == (NOW + 60_000_000, NOW, 0)
    later = msgspec.structs.replace(bench.made, now=NOW + 30_000_000)
    bench.commit(actions.rotate(bench.directory, bench.key, 60, later))
    assert [s.valid_until for s in bench.key.secrets] == [NOW + 60_000_000, NOW + 90_000_000, 0]
    at_once = msgspec.structs.replace(bench.made, now=NOW + 80_000_000)
    bench.commit(actions.rotate(bench.directory, bench.key, 0, at_once))
    assert [s.valid_until for s in bench.key.secrets] == [0]


def test_a_revoked_key_stays_revoked(bench: Bench) -> None:
    bench.commit(actions.revoke(bench.directory, bench.key, NOW))
    assert bench.key.revoked_at == NOW
    assert actions.revoke(bench.directory, bench.key, NOW + 1).empty
    assert refused(lambda: actions.rotate(bench.directory, bench.key, 0, bench.made)) == "key_revoked"
    bench.change(bench.key, owner="somebody")
    assert bench.key.revoked_at == NOW
    shown = key_view(bench.directory, bench.key, NOW)
    assert (shown.state, shown.path) == ("revoked", "acme/platform/dev")
    assert bench.key.secrets[0].hash.hex() not in repr(shown)


@pytest.mark.parametrize("name", ["uid", "slug", "path"])
def test_a_budget_changes_in_force_and_keeps_its_id(bench: Bench, name: str) -> None:
    rule = bench.key.budgets[0]
    scope = {"uid": bench.key.uid, "slug": "dev", "path": "acme/platform/dev"}[name]
    patch = api.BudgetPatch(limit_usd="7.25", mode="soft", alerts=(0.5,))
    bench.commit(actions.change_budget(bench.directory, f"key:{scope}:day", patch))
    after = bench.key.budgets[0]
    assert (after.id, after.limit_nano_usd, after.mode, after.at_cap) == (rule.id, 7_250_000_000, "soft", "finish")
    assert after.alerts_ppm == (500_000,)
    assert after.period == rule.period


def test_budgets_of_teams_and_provider_configs_change_too(bench: Bench) -> None:
    team_rule = bench.team.budgets[0]
    bench.commit(actions.change_budget(bench.directory, team_rule.id, api.BudgetPatch(limit_nano_usd=1)))
    assert bench.team.budgets[0] == msgspec.structs.replace(team_rule, limit_nano_usd=1)
    rule = bench.key.providers[0].budgets[0]
    bench.commit(actions.change_budget(bench.directory, rule.id, api.BudgetPatch(at_cap="finish")))
    assert bench.key.providers[0].budgets[0].at_cap == "finish"
    assert bench.key.budgets[0].at_cap == "cut"
    both = api.BudgetPatch(limit_usd=1, limit_nano_usd=1)
    assert refused(lambda: actions.change_budget(bench.directory, rule.id, both)) == "invalid_request limit_usd"
    unknown = api.BudgetPatch(limit_usd=1)
    assert refused(lambda: actions.change_budget(bench.directory, "key:dev:week", unknown)) == "not_found id"


def test_a_balance_is_shown_with_names_and_what_is_left_never_below_zero(bench: Bench) -> None:
    def shown(uid: str, rule_id: str, spent: int, held: int) -> api.BudgetItem:
        balance = Balance(
            budget_id=rule_id,
            scope=rule_id.partition(":")[0],
            scope_uid=uid,
            period="day",
            period_id="2026-11-21T00:00:00+00:00[UTC]",
            mode="hard",
            limit_nano_usd=100,
            spent_nano_usd=spent,
            held_nano_usd=held,
            resets_at=1_795_305_600_000_000,
        )
        return Scopes(bench.directory).item(balance, 1_795_262_400_000_000)  # noon

    key = bench.key
    item = shown(key.uid, key.budgets[0].id, 60, 15)
    assert (item.remaining_nano_usd, item.utilization_ppm, item.forecast_nano_usd) == (25, 750_000, 120)
    assert (item.scope_id, item.path, item.org) == ("dev", "acme/platform/dev", "default")
    over = shown(key.uid, key.budgets[0].id, 90, 15)
    assert (over.remaining_nano_usd, over.utilization_ppm) == (0, 1_050_000)
    part = key.providers[0]
    assert shown(part.uid, part.budgets[0].id, 0, 0).path == "acme/platform/dev/anthropic"
    member = shown(key.uid, f"{bench.team.budgets[0].id}:member:{key.uid}", 0, 0)
    assert (member.name, member.timezone) == ("all", "Europe/Berlin")
    gone = shown("U999", "key:U999:day", 5, 0)
    assert (gone.scope_id, gone.spent_nano_usd) == ("U999", 5)
