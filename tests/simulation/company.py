"""Who is governed in a simulation, in several revisions, and what things cost."""

from functools import cache

from services.budget.core.admission import Rules
from services.budget.core.limits import Catalogue
from services.budget.core.tariff import Tariff
from services.edge.core.facts import Facts
from services.edge.core.policy import Attempt
from shared.contracts.attribution import Principal
from shared.contracts.budget import Bound
from shared.contracts.config import (
    BudgetRule,
    ConfigChanged,
    Credential,
    Customer,
    Entity,
    Key,
    Org,
    Provider,
    RateLimits,
    Team,
)
from shared.directory import Directory
from tests.fixtures.budget import BOOK, MODEL, USD
from tests.simulation.clock import EPOCH

INPUT_NANO_USD, OUTPUT_NANO_USD = 1_000, 10_000  # of one token, in the round book; the provider's own idea of it
QUEUE_SECONDS = 2
TEAMS = {"hard1": "capped", "hard2": "capped", "soft1": "open", "roomy": "rich"}
KEYS = (
    "hard1",
    "hard2",
    "soft1",
    "roomy",
    "roomy",
)  # two under one hard team, one under soft budgets alone, one far from its cap
TEAM_CAPS_USD = (0.30, 0.45, 0.12, 0.80)  # by revision, the last ones repeat: lowered and raised under way
ROOMY_CAPS_USD = (2.0, 1.5, 3.0)
LIMITS = RateLimits(requests_per_minute=8, concurrent_requests=3, tokens_per_minute=60_000)  # of the second key
PROVIDER = Provider(
    uid="prov",
    org="org",
    name="anthropic",
    kind="anthropic",
    base_url="https://provider.example",
    credentials=(Credential(id="main", ref="env:KEY"),),
)
ATTEMPT = Attempt(
    provider=PROVIDER,
    provider_config="",
    credential=PROVIDER.credentials[0],
    wire_model=MODEL,
    base_url=PROVIDER.base_url,
)


def _rule(budget_id: str, limit_usd: float, mode: str = "hard", period: str = "day") -> BudgetRule:
    return BudgetRule(
        id=f"{budget_id}:{period}",
        limit_nano_usd=round(limit_usd * USD),
        period=period,
        mode=mode,
        queue_seconds=QUEUE_SECONDS,
    )


def _key(uid: str, team: str, *budgets: BudgetRule, limits: RateLimits | None = None) -> Key:
    return Key(
        uid=uid, org="org", customer="cus", team=team, id=uid, budgets=budgets, rate_limits=limits or RateLimits()
    )


def entities(rev: int) -> list[Entity]:
    cap = TEAM_CAPS_USD[(rev - 1) % len(TEAM_CAPS_USD)]
    roomy = ROOMY_CAPS_USD[(rev - 1) % len(ROOMY_CAPS_USD)]
    return [
        Org(uid="org", id="default", budgets=(_rule("org:org", 0.01, "soft", "month"),)),
        Customer(uid="cus", org="org", id="acme"),
        Team(uid="capped", org="org", customer="cus", id="capped", budgets=(_rule("team:capped", cap),)),
        Team(uid="open", org="org", customer="cus", id="open", budgets=(_rule("team:open", 0.05, "soft"),)),
        Team(uid="rich", org="org", customer="cus", id="rich", budgets=(_rule("team:rich", roomy),)),
        _key("roomy", "rich"),
        _key("hard1", "capped", _rule("key:hard1", 0.20, period="hour")),
        _key("hard2", "capped", limits=LIMITS),
        _key("soft1", "open"),
        PROVIDER,
    ]


@cache
def directory(rev: int) -> Directory:
    found = Directory()
    found.apply(ConfigChanged(config_rev=rev, at=EPOCH, actor="test", puts=tuple(entities(rev))))
    return found


@cache
def rules(rev: int) -> Rules:
    """As the owner decides by under this revision."""
    return Rules(Catalogue(directory(rev)), Tariff(BOOK))


def principal(key: str) -> Principal:
    return Principal(org="org", customer="cus", team=TEAMS[key], key=key)


def is_hard(key: str) -> bool:
    return key != "soft1"


def facts(text_bytes: int, max_tokens: int, stream: bool, session: str) -> Facts:
    return Facts(
        model=MODEL,
        model_span=(0, 0),
        max_tokens=max_tokens,
        stream=stream,
        bounds=(Bound(meter="text_bytes", quantity=text_bytes),),
        input_bytes=text_bytes,
        input_estimate=text_bytes // 3 + 1,
        body_digest=bytes(32),
        session=session,
    )
