"""Documents: how they are read, compared with what there is, and told again."""

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.core import describe
from services.console.core.changes import MESSAGE_BYTES, ChangeSet, messages
from services.console.core.organisation import diff, parse_organisation
from services.console.core.paths import org_named
from services.console.core.problem import Invalid
from shared.contracts import organisation
from shared.contracts.config import Customer, Key, ModelRateLimits, Org, Team
from shared.contracts.message import encode
from shared.directory import Directory

ASHA = "customers[0].teams[0].keys[0]"
WHOLE = """
contact: "platform@acme.example"
org: {id: default, budgets: [{limit_usd: 1000000, period: total}]}
providers:
  - {name: anthropic, kind: anthropic, base_url: "https://api.anthropic.com/", credential: "env:ANTHROPIC_API_KEY"}
  - name: other
    kind: anthropic
    base_url: http://127.0.0.1:9000
    credentials: [{id: a, ref: "file:/run/key", weight: 2, region: eu}]
prices:
  - {scope: "customer:acme", provider: anthropic, models: ["claude-*"], percent: -12.5, acts_on: cost, from: 2026-11-01}
  - {scope: "provider:anthropic", models: ["our-tuned-model"], usd_per_million: {input: 3, output: 15, cache_read: 0.3}}
  - {scope: "key:acme/platform/dev-asha", models: ["*"], percent: "-100", until: "2027-01-01T12:00:00Z"}
customers:
  - id: acme
    budgets: [{limit_usd: 100000, period: year, anchor: "2026-04-01"}]
    tags: {country: de}
    teams:
      - id: platform
        budgets:
          - {limit_usd: 5000, period: month, timezone: Europe/Berlin, mode: soft, alerts: [0.9]}
          - {limit_usd: "0.000000001", period: month, name: opus, match: {model: "claude-opus-*"}, per: member}
        keys:
          - id: dev-asha
            owner: asha@acme.example
            budgets: [{limit_usd: 500, period: month}, {limit_usd: 0.1, period: day, at_cap: finish}]
            session_budget_usd: 15
            rate_limits:
              requests_per_minute: 100
              concurrent_requests: 20
              models: {claude-opus-*: {tokens_per_minute: 100000}, "claude-haiku-*": {requests_per_day: 0}}
            models: ["claude-sonnet-*", "claude-haiku-*"]
            providers: [{name: anthropic, budgets: [{limit_usd: 300, period: month}]}]
            tags: {cost_center: "4711"}
          - {id: ci, secret: vk-fixed-for-the-tests}
      - id: data
  - {id: beta, teams: [{id: platform}]}
"""


class Bench:
    """A directory that documents are applied to."""

    def __init__(self) -> None:
        self.directory = Directory()
        self._uids, self._secrets = itertools.count(1), itertools.count(1)

    def new_uid(self) -> str:
        return f"U{next(self._uids):04}"

    def new_secret(self) -> str:
        return f"vk-{next(self._secrets):043}"

    def diff(self, text: str, *, prune: bool = False) -> ChangeSet:
        document = parse_organisation(text.encode(), is_json=False)
        return diff(self.directory, document, new_uid=self.new_uid, new_secret=self.new_secret, now=1_000, prune=prune)

    def commit(self, changes: ChangeSet) -> ChangeSet:
        for part in messages(changes, self.directory.config_rev + 1, 1_000, "test"):
            self.directory.apply(part)
        return changes

    def apply(self, text: str, *, prune: bool = False) -> ChangeSet:
        return self.commit(self.diff(text, prune=prune))

    def document(self) -> organisation.Organisation:
        org = org_named(self.directory, "default")
        assert org is not None
        return describe.document(self.directory, org)

    def key(self, slug: str) -> Key:
        return next(e for e in self.directory.entities.values() if isinstance(e, Key) and e.id == slug)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.apply(WHOLE)
    return made


def swapped(old: str, new: str) -> str:
    assert old in WHOLE
    return WHOLE.replace(old, new)


def test_dollars_become_nano_dollars_exactly(bench: Bench) -> None:
    asha = bench.key("dev-asha")
    assert [rule.limit_nano_usd for rule in asha.budgets] == [500_000_000_000, 100_000_000]
    assert asha.session_budget_nano_usd == 15_000_000_000
    team = next(
        e for e in bench.directory.entities.values() if isinstance(e, Team) and e.id == "platform" and e.budgets
    )
    assert [rule.limit_nano_usd for rule in team.budgets] == [5_000_000_000_000, 1]
    (acme, card, free) = bench.directory.prices(asha.org)
    assert (acme.percent_ppm, acme.from_at) == (-125_000, 1_793_491_200_000_000)
    assert card.rates == {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000}
    assert (free.scope, free.percent_ppm) == (f"key:{asha.uid}", -1_000_000)


def test_rate_limits_are_kept_for_all_models_and_for_some(bench: Bench) -> None:
    found = bench.key("dev-asha").rate_limits
    assert (found.requests_per_minute, found.concurrent_requests, found.tokens_per_minute) == (100, 20, 0)
    assert found.models == {"claude-opus-*": ModelRateLimits(tokens_per_minute=100_000)}, (
        "what limits nothing is left out"
    )
    told = msgspec.to_builtins(bench.document().customers[0].teams[1].keys[1])
    assert told["rate_limits"] == {
        "requests_per_minute": 100,
        "concurrent_requests": 20,
        "models": {"claude-opus-*": {"tokens_per_minute": 100_000}},
    }


def test_ids_of_budgets_and_what_hard_and_soft_do_at_the_cap(bench: Bench) -> None:
    asha = bench.key("dev-asha")
    assert [rule.id for rule in asha.budgets] == [f"key:{asha.uid}:month", f"key:{asha.uid}:day"]
    assert asha.providers[0].budgets[0].id == f"provider_config:{asha.providers[0].uid}:month"
    assert [rule.at_cap for rule in asha.budgets] == ["cut", "finish"]
    team = bench.directory.entities[asha.team]
    assert isinstance(team, Team)
    assert [rule.id for rule in team.budgets] == [f"team:{team.uid}:month", f"team:{team.uid}:month:opus"]
    assert [rule.at_cap for rule in team.budgets] == ["finish", "cut"]
    assert asha.contact == ""
    assert bench.directory.contact(bench.directory.principal(asha)) == "platform@acme.example"


def test_made_secrets_are_told_once_and_fixed_ones_are_kept_as_hashes() -> None:
    bench = Bench()
    changes = bench.apply(WHOLE)
    assert [(made.key, made.secret[:3]) for made in changes.secrets] == [("acme/platform/dev-asha", "vk-")]
    fixed = bench.key("ci").secrets[0]
    assert len(fixed.hash) == 32
    assert "fixed-for-the-tests" not in fixed.hint
    assert changes.secrets[0].secret not in repr(bench.directory.entities)


def test_applying_the_same_document_again_changes_nothing(bench: Bench) -> None:
    assert bench.diff(WHOLE).empty
    assert bench.diff(WHOLE).changes == ()


def test_what_is_told_can_be_applied_again_and_changes_nothing(bench: Bench) -> None:
    text = msgspec.yaml.encode(bench.document()).decode()
    assert bench.diff(text).changes == ()
    as_json = parse_organisation(msgspec.json.encode(bench.document()), is_json=True)
    assert as_json == bench.document()


def test_a_changed_limit_keeps_uids_secrets_and_revocation(bench: Bench) -> None:
    before = bench.key("dev-asha")
    revoked = msgspec.structs.replace(before, revoked_at=5)
    bench.commit(ChangeSet(puts=(revoked,)))
    changes = bench.apply(swapped("limit_usd: 500,", "limit_usd: 600,"))
    assert [(c.action, c.path, c.fields) for c in changes.changes] == [
        ("change", "acme/platform/dev-asha", ("budgets",))
    ]
    after = bench.key("dev-asha")
    assert (after.uid, after.secrets, after.revoked_at) == (before.uid, before.secrets, 5)
    assert after.revision == before.revision + 1
    assert after.providers[0].uid == before.providers[0].uid


def test_a_key_taken_out_and_put_back_is_a_new_one(bench: Bench) -> None:
    before = bench.key("dev-asha")
    without = swapped('scope: "key:acme/platform/dev-asha", ', "")
    start, end = without.index("          - id: dev-asha"), without.index("          - {id: ci")
    gone = bench.apply(without[:start] + without[end:])
    assert ("delete", "acme/platform/dev-asha") in [(c.action, c.path) for c in gone.changes]
    assert before.uid not in bench.directory.entities
    back = bench.apply(WHOLE)
    assert bench.key("dev-asha").uid != before.uid
    assert len(back.secrets) == 1


def test_a_team_that_holds_a_key_of_the_console_stays(bench: Bench) -> None:
    ci = bench.key("ci")
    bench.commit(ChangeSet(puts=(msgspec.structs.replace(ci, managed_by="console"),)))
    changes = bench.diff("customers: []")
    kept = {change.path for change in changes.changes if change.action == "keep"}
    assert kept == {"acme", "acme/platform"}
    assert ci.uid not in changes.deletes
    assert ci.uid in bench.diff("customers: []", prune=True).deletes


def test_a_new_fixed_secret_takes_the_place_of_the_last_one(bench: Bench) -> None:
    before = bench.key("ci").secrets
    bench.apply(swapped("vk-fixed-for-the-tests", "vk-another-for-the-tests"))
    after = bench.key("ci").secrets
    assert len(after) == 1
    assert after[0].hash != before[0].hash


def refused(change: Callable[[], object]) -> Invalid:
    with pytest.raises(Invalid) as caught:
        change()
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("limit_usd: 500,", "limit_us: 500,", "customers[0].teams[0].keys[0].budgets[0].limit_us"),
        ("limit_usd: 500, period: month", "limit_usd: 500", "customers[0].teams[0].keys[0].budgets[0].period"),
        ("limit_usd: 500,", "limit_usd: -1,", "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("limit_usd: 500,", "limit_usd: .nan,", "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("limit_usd: 500,", "limit_usd: .inf,", "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("limit_usd: 500,", "limit_usd: true,", "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("limit_usd: 500,", "limit_usd: 1e30,", "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("limit_usd: 500,", 'limit_usd: "1_000",', "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("limit_usd: 500,", "limit_usd: 0.0000000001,", "customers[0].teams[0].keys[0].budgets[0].limit_usd"),
        ("Europe/Berlin", "Europe/Atlantis", "customers[0].teams[0].budgets[0].timezone"),
        ('"2026-04-01"', '"2026-02-30"', "customers[0].budgets[0].anchor"),
        ("from: 2026-11-01", "from: soon", "prices[0].from"),
        ("acts_on: cost, from: 2026-11-01", "from: 2026-11-01, until: 2026-10-01", "prices[0].until"),
        ("percent: -12.5", "percent: -101", "prices[0].percent"),
        ("percent: -12.5", "percent: -1, usd_per_million: {input: 1}", "prices[0].percent"),
        ('scope: "customer:acme"', 'scope: "customer:nobody"', "prices[0].scope"),
        ('scope: "customer:acme"', 'scope: "team:platform"', "prices[0].scope"),
        ('scope: "customer:acme"', 'scope: "planet:earth"', "prices[0].scope"),
        ("provider: anthropic, models", "provider: openai, models", "prices[0].provider"),
        ("{name: anthropic, budgets", "{name: openai, budgets", "customers[0].teams[0].keys[0].providers[0].name"),
        ("- id: data", "- id: platform", "customers[0].teams[1].id"),
        ("{id: ci, ", "{id: dev-asha, ", "customers[0].teams[0].keys[1].id"),
        ("{id: beta, teams: [{id: platform}]}", "{id: acme}", "customers[1].id"),
        ("name: other", "name: anthropic", "providers[1].name"),
        ("id: beta,", "id: 'be/ta',", "customers[1].id"),
        ("period: day, at_cap: finish", "period: month", "customers[0].teams[0].keys[0].budgets[1]"),
        ("period: day, at_cap: finish", "period: day, per: member", "customers[0].teams[0].keys[0].budgets[1].per"),
        ('model: "claude-opus-*"', 'modl: "claude-opus-*"', "customers[0].teams[0].budgets[1].match.modl"),
        ('model: "claude-opus-*"', 'provider: "openai"', "customers[0].teams[0].budgets[1].match.provider"),
        ('"claude-haiku-*"]', '""]', "customers[0].teams[0].keys[0].models[1]"),
        ("requests_per_day: 0", "requests_a_day: 0", f"{ASHA}.rate_limits.models[...].requests_a_day"),
        ("requests_per_day: 0", "requests_per_day: -1", f"{ASHA}.rate_limits.models[...].requests_per_day"),
        ('"claude-haiku-*": {', '"": {', f"{ASHA}.rate_limits.models[1]"),
        ("https://api.anthropic.com/", "ftp://api.anthropic.com/", "providers[0].base_url"),
        ("https://api.anthropic.com/", "https://u:p@api.anthropic.com/", "providers[0].base_url"),
        ("env:ANTHROPIC_API_KEY", "sk-ant-secret", "providers[0].credential"),
        ("kind: anthropic, base_url", "kind: openai, base_url", "providers[0].kind"),
        ('cost_center: "4711"', "cost_center: 4711", "customers[0].teams[0].keys[0].tags[...]"),
        ("session_budget_usd: 15", "session_budget_usd: 15\n            session_budget_usd: 16", "session_budget_usd"),
    ],
)
def test_what_is_wrong_is_refused_naming_the_field(old: str, new: str, field: str) -> None:
    error = refused(lambda: Bench().diff(swapped(old, new)))
    assert error.field == field
    assert error.status == 400
    assert "sk-ant-secret" not in error.message  # what stands in the wrong place may be a secret


def test_broken_yaml_and_json_are_refused_with_their_place() -> None:
    assert "line 2" in refused(lambda: parse_organisation(b"a: 1\n  b: [", is_json=False)).message
    assert refused(lambda: parse_organisation(b'{"org": ', is_json=True)).code == "invalid_json"
    assert refused(lambda: parse_organisation(b'{"contact": "a", "contact": "b"}', is_json=True)).field == "contact"
    assert refused(lambda: parse_organisation(b"[" * 20_000, is_json=True)).code == "invalid_json"
    assert parse_organisation(b"{}", is_json=False) == organisation.Organisation()


@pytest.mark.parametrize("nothing", [b"", b"\n", b"# customers: []\n", b"---\n", b"null"])
def test_a_document_without_content_is_refused_because_it_would_delete_everything(nothing: bytes) -> None:
    assert refused(lambda: parse_organisation(nothing, is_json=False)).code == "empty"
    assert refused(lambda: parse_organisation(b"null", is_json=True)).code == "empty"


def test_one_secret_is_one_keys(bench: Bench) -> None:
    twice = swapped("- id: data", "- {id: data, keys: [{id: thief, secret: vk-fixed-for-the-tests}]}")
    assert refused(lambda: bench.diff(twice)).code == "secret_taken"
    moved = swapped("{id: ci, ", "{id: ci-2, ")
    assert ("delete", "acme/platform/ci") in [(c.action, c.path) for c in bench.diff(moved).changes]


def test_a_provider_that_a_key_still_names_cannot_go(bench: Bench) -> None:
    start = WHOLE.index("  - {name: anthropic, kind")
    without = WHOLE[:start] + WHOLE[WHOLE.index("  - name: other") :]
    assert refused(lambda: bench.diff(without)).code == "unknown_reference"


def test_two_organisations_stand_side_by_side(bench: Bench) -> None:
    bench.apply("org: {id: other}\ncustomers: [{id: acme}]")
    assert sum(1 for e in bench.directory.entities.values() if isinstance(e, Org)) == 2
    assert sum(1 for e in bench.directory.entities.values() if isinstance(e, Customer) and e.id == "acme") == 2
    assert bench.diff(WHOLE).empty


def test_a_large_set_is_cut_into_messages_that_apply_as_one() -> None:
    keys = ", ".join(f"{{id: k{n}, owner: '{'o' * 300}'}}" for n in range(6_000))
    bench = Bench()
    changes = bench.diff(f"customers: [{{id: c, teams: [{{id: t, keys: [{keys}]}}]}}]")
    parts = messages(changes, 1, 1, "test")
    assert len(parts) > 2
    assert all(len(encode(part)) < MESSAGE_BYTES for part in parts)
    assert [bench.directory.apply(part) for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(bench.directory.entities) == 6_003
    gone = messages(bench.diff("{}"), 2, 2, "test")
    assert [bench.directory.apply(part) for part in gone][-1]
    assert len(bench.directory.entities) == 1


slugs = st.sampled_from(["a", "b", "c"])
amounts = st.integers(0, 10**12).map(lambda nano: f"{nano // 10**9}.{nano % 10**9:09}")
budgets = st.lists(
    st.fixed_dictionaries(
        {"limit_usd": amounts, "period": st.sampled_from(["day", "month"]), "name": st.sampled_from(["", "x"])}
    ),
    max_size=2,
    unique_by=lambda budget: (budget["period"], budget["name"]),
)
keys = st.lists(st.fixed_dictionaries({"id": slugs, "budgets": budgets}), max_size=3, unique_by=lambda k: k["id"])
teams = st.lists(st.fixed_dictionaries({"id": slugs, "keys": keys}), max_size=2, unique_by=lambda t: t["id"])
customers = st.lists(
    st.fixed_dictionaries({"id": slugs, "budgets": budgets, "teams": teams}), max_size=2, unique_by=lambda c: c["id"]
)


@given(st.lists(customers, min_size=1, max_size=4))
def test_after_any_row_of_documents_the_last_one_is_what_there_is(rows: list[object]) -> None:
    bench = Bench()
    kept: dict[str, str] = {}
    for row in rows:
        document = msgspec.convert({"customers": row}, organisation.Organisation)
        before = set(bench.directory.entities)
        changes = diff(bench.directory, document, new_uid=bench.new_uid, new_secret=bench.new_secret, now=1)
        bench.commit(changes)
        assert all(change.uid in before for change in changes.changes if change.action == "change")
        again = diff(bench.directory, document, new_uid=bench.new_uid, new_secret=bench.new_secret, now=1)
        assert again.empty
        told = bench.document()
        assert sorted(c.id for c in told.customers) == sorted(c.id for c in document.customers)
        for uid, entity in bench.directory.entities.items():
            assert kept.setdefault(uid, repr(type(entity))) == repr(type(entity))  # a uid is never used again
