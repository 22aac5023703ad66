"""Negotiated prices: which of the organisation's overrides acts on a line."""

from collections import defaultdict
from collections.abc import Iterable, Set
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from shared.contracts.config import PriceOverride
from shared.contracts.message import Micros, Uid
from shared.rates.book import FOR_EVER

Basis = Literal["list", "cost", "charge"]
_SCOPES = ("", "provider", "customer", "team", "key")  # from the least to the most specific
_WILD = frozenset("*?[")


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Under what terms an attempt is priced: the provider, whose it is, and when it was sent.

    at: `sent_at`, which decides the rate card. unpriced: the provider's policy: deny, ceiling, flag.
    """

    at: Micros
    provider_kind: str = "anthropic"
    provider: Uid = ""
    org: Uid = ""
    customer: Uid = ""
    team: Uid = ""
    key: Uid = ""
    unpriced: str = "deny"


class Acting(msgspec.Struct, frozen=True, kw_only=True):
    """The override that acts on each amount of one model, and the card that stands in where the book has none."""

    list: PriceOverride | None = None
    cost: PriceOverride | None = None
    charge: PriceOverride | None = None
    card: PriceOverride | None = None


NOTHING = Acting()


class Overrides:
    """All overrides in force, by organisation. Made anew when CONFIG changes."""

    def __init__(self, overrides: Iterable[PriceOverride] = ()) -> None:
        self._by_org: dict[Uid, list[PriceOverride]] = defaultdict(list)
        for override in overrides:
            self._by_org[override.org].append(override)

    def next_change(self, org: Uid, at: Micros) -> Micros:
        """When any of this organisation's prices begins or ends next; FOR_EVER when none does."""
        turns = (turn for each in self._by_org.get(org, ()) for turn in (each.from_at, each.until_at))
        return min((turn for turn in turns if turn > at), default=FOR_EVER)

    def acting(self, terms: Terms, names: Set[str]) -> Acting:
        """The most specific override for each amount: key, team, customer, provider, all; then an exact model name
        before a pattern, then one that names the provider, then the later start, then the later uid.

        names: all ids of the model (`Book.names`).
        One override acts on each amount; they do not pile up on one another, since a customer's 12 % off is meant off the
        public price and not off what another scope agreed.
        """
        candidates = self._by_org.get(terms.org)
        if not candidates:
            return NOTHING
        found = sorted((o for o in candidates if _applies(o, terms, names)), key=lambda o: _rank(o, names))
        if not found:
            return NOTHING
        by_basis = {override.acts_on: override for override in found}  # the last, most specific, stays
        cards = {override.acts_on: override for override in found if override.rates}
        card = cards.get("list") or cards.get("cost") or cards.get("charge")
        return Acting(list=by_basis.get("list"), cost=by_basis.get("cost"), charge=by_basis.get("charge"), card=card)


def _applies(override: PriceOverride, terms: Terms, names: Set[str]) -> bool:
    if override.from_at > terms.at or (override.until_at and terms.at >= override.until_at):
        return False
    if override.provider and override.provider != terms.provider:
        return False
    kind, _, uid = override.scope.partition(":")
    if kind and (kind not in _SCOPES or getattr(terms, kind) != uid):
        return False
    return any(fnmatchcase(name, pattern) for pattern in override.models for name in names)


def _rank(override: PriceOverride, names: Set[str]) -> tuple[int, bool, bool, Micros, Uid]:
    exact = any(pattern in names for pattern in override.models if not _WILD & set(pattern))
    scope = _SCOPES.index(override.scope.partition(":")[0])
    return scope, exact, bool(override.provider), override.from_at, override.uid
