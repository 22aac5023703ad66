"""The budgets that apply to a request, prepared from the organisation once per revision."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from zoneinfo import ZoneInfoNotFoundError

import msgspec

from services.budget.core.allowance import Agenda, Allowance, Allowances
from services.budget.core.luggage import Stay
from services.budget.core.periods import Calendar, Period
from services.budget.core.rate_limits import RateRules
from services.budget.core.state import Counter, State
from shared.contracts.attribution import Charge, Principal
from shared.contracts.config import BudgetRule, Customer, Grant, Key, Provider, Team
from shared.contracts.message import Micros, NanoUSD, Uid
from shared.directory import Directory
from shared.lifetimes import Lifetime
from shared.rates import Basis, canonical

_BASES: dict[str, Basis] = {"list": "list", "cost": "cost", "charge": "charge"}
_MATCHES = ("model", "provider", "credential", "operation", "tag")
SESSION_CHARACTERS = 128  # clients choose session ids; longer ones share a budget by their beginning


class Facts(msgspec.Struct, frozen=True):
    """What a budget's `match` can look at."""

    model: str
    provider: Provider
    credential: str
    operation: str
    tags: dict[str, str]


class Limit:
    """One budget. block_scope: whom a spent one blocks at the edges; "" when only a RESERVE can tell.

    allowances: None where the rule's limit is all there is, which needs no working out.
    """

    __slots__ = (
        *("basis", "block_scope", "calendar", "hard", "id", "org", "rule", "scope", "scope_uid"),
        *("_fixed", "allowances"),
    )

    def __init__(
        self,
        org: Uid,
        scope: str,
        scope_uid: Uid,
        rule: BudgetRule,
        calendar: Calendar,
        allowances: Allowances | None = None,
    ) -> None:
        self.id = rule.id
        self.org = org
        self.scope = scope
        self.scope_uid = scope_uid
        self.rule = rule
        self.calendar = calendar
        self.allowances = allowances
        self._fixed = Allowance(rule.limit_nano_usd)
        self.hard = rule.mode not in ("soft", "shadow")  # what is misspelt must not mean unlimited
        self.basis: Basis = _BASES.get(rule.basis, "cost")
        self.block_scope = f"{scope}:{scope_uid}" if self.hard and not rule.match and scope != "session" else ""

    def now(self, state: State, now: Micros) -> tuple[Period, Counter]:
        """The present period and what is booked in it."""
        period = self.calendar.at(now)
        return period, state.counter(self.id, period.id)

    def allowance(self, state: State, period: Period, now: Micros) -> Allowance:
        """What may be spent in this period, as things stand now."""
        return self._fixed if self.allowances is None else self.allowances.at(state, period, now)

    def room(self, state: State, charge: Charge, admitted_at: Micros, now: Micros) -> tuple[NanoUSD, NanoUSD]:
        """What is left and what is free, as in admission.Room, for a hold that was booked on this charge at that instant."""
        period = self.calendar.at(admitted_at)
        if self.allowances and period.id == charge.period_id:
            return self.allowances.room(state, period, now)
        counter = state.counter(charge.budget_id, charge.period_id)
        left = self._fixed.nano_usd - counter.spent(self.basis)
        return left, left - counter.held_nano_usd

    def spent(self, state: State, now: Micros) -> bool:
        """Whether nothing at all is left, however little was asked for."""
        period, counter = self.now(state, now)
        return self.hard and counter.spent(self.basis) >= self.allowance(state, period, now).nano_usd

    def matches(self, facts: Facts) -> bool:
        """A condition we do not know matches everything, so that the budget rather holds too much than nothing."""
        return all(_matches(name, pattern, facts) for name, pattern in self.rule.match.items())


def _matches(name: str, pattern: str, facts: Facts) -> bool:
    if name == "model":
        return fnmatchcase(facts.model, pattern) or fnmatchcase(canonical(facts.model), pattern)
    if name == "provider":
        return fnmatchcase(facts.provider.name, pattern) or facts.provider.uid == pattern
    if name == "tag":  # NAME=VALUE, the value a shell pattern
        tag, _, value = pattern.partition("=")
        return fnmatchcase(facts.tags.get(tag, ""), value or "?*")
    if name in _MATCHES:
        return fnmatchcase(getattr(facts, name), pattern)
    return True


class Path:
    """All budgets above one key and one provider, widest scope first, and what else they decide together."""

    __slots__ = ("bases", "contact", "hard", "hold", "key", "limits", "matching", "principal", "provider")

    def __init__(
        self, key: Key, provider: Provider, principal: Principal, limits: tuple[Limit, ...], contact: str
    ) -> None:
        self.key = key
        self.provider = provider
        self.principal = principal
        self.limits = limits
        self.contact = contact
        self.hard = tuple(limit for limit in limits if limit.hard)
        self.matching = any(limit.rule.match for limit in limits)
        self.bases: tuple[Basis, ...] = tuple(sorted({limit.basis for limit in self.hard})) or ("cost",)
        self.hold = _largest_hold(limits)

    def narrowed(self, facts: Facts) -> "Path":
        """Without the budgets that this request does not concern."""
        limits = tuple(limit for limit in self.limits if not limit.rule.match or limit.matches(facts))
        return Path(self.key, self.provider, self.principal, limits, self.contact)


def _largest_hold(limits: tuple[Limit, ...]) -> str:
    """What a budget of the path asks for, of bound, adaptive, expected. What is misspelt is the bound."""
    asked = {limit.rule.hold for limit in limits} or {"adaptive"}
    if asked - {"adaptive", "expected"}:
        return "bound"
    return "adaptive" if "adaptive" in asked else "expected"


class Catalogue:
    """Every budget of one shard's organisations, as of one revision of CONFIG; made anew when that changes.

    shard: "" for those of all. stays: of organisations that moved; the ledger says who lives here, CONFIG only who should.
    """

    def __init__(self, directory: Directory, shard: str = "", stays: Mapping[str, Stay] = MappingProxyType({})) -> None:
        self.config_rev = directory.config_rev
        self._shard = shard
        self._moved = {org: stay.phase == "here" for org, stay in stays.items()}
        self._move = {org: stay.move for org, stay in stays.items()}
        self._directory = directory
        self._calendars: dict[tuple[str, str, str], Calendar] = {}
        self._paths: dict[tuple[Uid, Uid, str], Path | None] = {}
        self.limits: dict[str, Limit] = {}
        self.by_scope: dict[str, list[Limit]] = defaultdict(list)
        self.not_enforced: set[str] = set()
        self.rates = RateRules(directory)
        self._key_of_config: dict[Uid, Uid] = {}
        self._members: dict[Uid, list[tuple[str, BudgetRule]]] = defaultdict(list)
        self._grants: dict[str, list[Grant]] = defaultdict(list)
        for entity in directory.entities.values():
            if isinstance(entity, Grant):
                self._grants[entity.budget_id].append(entity)
        for org, scope, uid, rule in directory.all_rules():
            if not self.has(org):
                continue
            if rule.per:
                self._members[uid].append((org, rule))
            else:
                self._add(self._limit(org, scope, uid, rule, directory.lifetimes.of_budget(rule.id)))
        for entity in directory.entities.values():
            if isinstance(entity, Key) and self.has(entity.org):
                self._add_key(entity)
        self.agenda = Agenda(
            (at, limit.id) for limit in self.limits.values() if limit.allowances for at in limit.allowances.turns()
        )

    def _limit(self, org: Uid, scope: str, scope_uid: Uid, rule: BudgetRule, lifetime: Lifetime) -> Limit:
        calendar, basis, grants = self._calendar(rule), _BASES.get(rule.basis, "cost"), self._grants.get(rule.id, ())
        is_fixed = not grants and (not rule.rollover_cap_nano_usd or rule.period == "total")
        allowances = None if is_fixed else Allowances(rule, basis, calendar, lifetime, grants)
        return Limit(org, scope, scope_uid, rule, calendar, allowances)

    def has(self, org: Uid) -> bool:
        """Whether this organisation is decided here."""
        if not self._shard:
            return True
        return self._moved[org] if org in self._moved else self._directory.first_shard(org) == self._shard

    def elsewhere(self, org: Uid) -> bool:
        """Whether another shard decides for it, or nobody at this moment. Nobody's organisation is told so here."""
        return bool(org) and org in self._directory.entities and not self.has(org)

    def move_of(self, scope: str) -> int:
        """The revision of CONFIG that brought the organisation of `scope:uid` here; 0 where it was always here."""
        return self._move.get(self._directory.org_of.get(scope.partition(":")[2], ""), 0)

    def _add(self, limit: Limit) -> None:
        self.limits[limit.id] = limit
        if limit.block_scope:
            self.by_scope[limit.block_scope].append(limit)
        if unknown := limit.rule.match.keys() - set(_MATCHES):
            self.not_enforced.update(f"match.{name}" for name in unknown)

    def _add_key(self, key: Key) -> None:
        self._key_of_config.update((config.uid, key.uid) for config in key.providers)
        for uid in (key.org, key.customer, key.team, key.uid):
            for org, rule in self._members.get(uid, ()):
                self._add(self._member_limit(org, key, rule))

    def _member_limit(self, org: Uid, key: Key, rule: BudgetRule) -> Limit:
        """A team's `per: member` budget as the cap of one of its keys; there since both are."""
        own = msgspec.structs.replace(rule, id=member_id(rule, key))
        lifetimes = self._directory.lifetimes
        lifetime = lifetimes.of_budget(rule.id)
        since = max(lifetime.since, lifetimes.made_at.get(key.uid, 0))
        return self._limit(org, "key", key.uid, own, msgspec.structs.replace(lifetime, since=since))

    def _calendar(self, rule: BudgetRule) -> Calendar:
        """One object per calendar, so that a period is worked out once for all who share it."""
        name = (rule.period, rule.timezone, rule.anchor)
        if name not in self._calendars:
            try:
                self._calendars[name] = Calendar(*name)
            except (ZoneInfoNotFoundError, ValueError):
                # the console refuses such a rule; an old one that slipped through must still limit something
                self.not_enforced.add(f"timezone or anchor {rule.timezone} {rule.anchor}")
                self._calendars[name] = Calendar(rule.period)
        return self._calendars[name]

    def path(self, key_uid: Uid, provider_uid: Uid, session: str = "") -> Path | None:
        """None when the key or the provider is not governed here."""
        entity = self._directory.entities.get(key_uid)
        if not isinstance(entity, Key) or not self.has(entity.org):
            return None
        if not entity.session_budget_nano_usd:
            session = ""  # one path for all sessions
        name = (key_uid, provider_uid, session)
        if name not in self._paths:
            if session and len(self._paths) > 100_000:
                self._paths.clear()  # sessions come and go
            self._paths[name] = self._path(entity, provider_uid, session)
        return self._paths[name]

    def _path(self, key: Key, provider_uid: Uid, session: str) -> Path | None:
        provider = self._directory.provider(provider_uid)
        if provider is None or provider.org != key.org:
            return None
        config = next((c.uid for c in key.providers if c.provider == provider_uid), "")
        principal = self._directory.principal(key, config)
        found = [self._of_rule(rule, key) for _, _, rule in self._directory.rules_on(principal)]
        if key.session_budget_nano_usd:
            found.append(self._session_limit(key, session))
        return Path(key, provider, principal, tuple(found), self._directory.contact(principal))

    def _of_rule(self, rule: BudgetRule, key: Key) -> Limit:
        return self.limits[member_id(rule, key) if rule.per else rule.id]

    def _session_limit(self, key: Key, session: str) -> Limit:
        """Requests that name no session share one. Not listed: there are as many as clients make up."""
        rule = BudgetRule(
            id=f"session:{key.uid}:total:{session[:SESSION_CHARACTERS]}",
            limit_nano_usd=key.session_budget_nano_usd,
            period="total",
        )
        return Limit(key.org, "session", key.uid, rule, self._calendar(rule))

    def limit(self, budget_id: str) -> Limit | None:
        """By id, sessions included; None when its rule is gone."""
        if not budget_id.startswith("session:"):
            return self.limits.get(budget_id)
        _, key_uid, _, session = budget_id.split(":", 3)
        entity = self._directory.entities.get(key_uid)
        if not isinstance(entity, Key) or not entity.session_budget_nano_usd:
            return None
        return self._session_limit(entity, session)

    def contact(self, limit: Limit) -> str:
        """Whom to ask about a budget: the nearest contact above its scope."""
        key = limit.scope_uid if limit.scope in ("key", "session") else ""
        if limit.scope == "provider_config":
            key = self._key_of_config.get(limit.scope_uid, "")
        entity = self._directory.entities.get(key or limit.scope_uid)
        match entity:
            case Key():
                principal = self._directory.principal(entity)
            case Team():
                principal = Principal(org=entity.org, customer=entity.customer, team=entity.uid)
            case Customer():
                principal = Principal(org=entity.org, customer=entity.uid)
            case _:
                principal = Principal(org=limit.org)
        return limit.rule.contact or self._directory.contact(principal)

    def listed(self, org: Uid = "") -> Iterator[Limit]:
        """Every budget of an organisation, or of all."""
        return (limit for limit in self.limits.values() if not org or limit.org == org)


def member_id(rule: BudgetRule, key: Key) -> str:
    """The id of one member's share in a `per: member` rule; a name in a rule's id has no colon, so it is unique."""
    return f"{rule.id}:member:{key.uid}"
