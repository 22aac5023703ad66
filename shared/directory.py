"""The organisation in memory: CONFIG's change sets folded into look-ups. Pure; `ConfigFollower` keeps one current."""

import fnmatch
from collections.abc import Iterator

from shared.contracts.attribution import Principal
from shared.contracts.budget import DEFAULT_SHARD
from shared.contracts.config import (
    BudgetRule,
    ConfigChanged,
    Customer,
    Entity,
    Key,
    Org,
    PriceOverride,
    Provider,
    ProviderConfig,
    RateLimits,
    Secret,
    Team,
)
from shared.lifetimes import Lifetimes


class Directory:
    """What is governed, as of `config_rev`. Apply change sets in order; look-ups are by uid, slug or secret hash.

    homes: of each organisation there ever was, the shards it lived in, with the revision that brought it to each.
    org_of: the organisation of every uid there ever was, provider configs and grants included.
    """

    def __init__(self) -> None:
        self.config_rev = 0
        self.entities: dict[str, Entity] = {}
        self.lifetimes = Lifetimes()
        self._secrets: dict[bytes, tuple[str, Secret]] = {}
        self._providers: dict[str, Provider] = {}
        self._prices: dict[str, PriceOverride] = {}
        self._pending: list[ConfigChanged] = []
        self.homes: dict[str, tuple[tuple[int, str], ...]] = {}
        self.org_of: dict[str, str] = {}

    def apply(self, change: ConfigChanged) -> bool:
        """Fold one message in; True when it completed a change set. A set broken off is dropped by the next revision."""
        if change.config_rev <= self.config_rev:
            return False
        if self._pending and self._pending[0].config_rev != change.config_rev:
            self._pending.clear()
        self._pending.append(change)
        if change.more:
            return False
        for part in self._pending:
            for uid in part.deletes:
                if gone := self.entities.get(uid):
                    self.lifetimes.remove(gone)
            for entity in part.puts:
                self.lifetimes.put(self.entities.get(entity.uid), entity, part.at)
        for part in self._pending:  # all that goes first: a secret may move from one key to another in one set
            for uid in (*part.deletes, *(entity.uid for entity in part.puts)):
                self._remove(uid)
        for part in self._pending:
            for entity in part.puts:
                self._put(entity)
                self._note(entity, change.config_rev)
        self._pending.clear()
        self.config_rev = change.config_rev
        return True

    def _put(self, entity: Entity) -> None:
        self.entities[entity.uid] = entity
        if isinstance(entity, Key):
            for secret in entity.secrets:
                self._secrets[secret.hash] = (entity.uid, secret)
        elif isinstance(entity, Provider):
            self._providers[entity.uid] = entity
        elif isinstance(entity, PriceOverride):
            self._prices[entity.uid] = entity

    def _note(self, entity: Entity, config_rev: int) -> None:
        """What stays known when it is gone: the ledger remembers deleted keys and budgets too."""
        org = entity.uid if isinstance(entity, Org) else entity.org
        self.org_of[entity.uid] = org
        if isinstance(entity, Key):
            self.org_of.update((config.uid, org) for config in entity.providers)
        if isinstance(entity, Org):
            homes = self.homes.get(org, ())
            if not homes or homes[-1][1] != entity.shard:
                self.homes[org] = (*homes, (config_rev, entity.shard))

    def _remove(self, uid: str) -> None:
        entity = self.entities.pop(uid, None)
        self._providers.pop(uid, None)
        self._prices.pop(uid, None)
        if isinstance(entity, Key):
            for secret in entity.secrets:
                self._secrets.pop(secret.hash, None)

    def key_of_secret(self, secret_hash: bytes) -> tuple[Key, Secret] | None:
        """The key that has this secret, whatever its validity. The hash is of 256 random bits: a plain look-up leaks nothing."""
        found = self._secrets.get(secret_hash)
        return None if found is None else (self.key(found[0]), found[1])

    def key(self, uid: str) -> Key:
        entity = self.entities[uid]
        assert isinstance(entity, Key)
        return entity

    def provider(self, uid: str) -> Provider | None:
        return self._providers.get(uid)

    def provider_named(self, org: str, name: str) -> Provider | None:
        return next((p for p in self.providers(org) if p.name == name), None)

    def providers(self, org: str) -> Iterator[Provider]:
        return (provider for provider in self._providers.values() if provider.org == org)

    def prices(self, org: str) -> tuple[PriceOverride, ...]:
        return tuple(price for price in self._prices.values() if price.org == org)

    def name(self, uid: str) -> str:
        """The slug people know it by; empty when it is unknown."""
        entity = self.entities.get(uid)
        if entity is None:
            return ""
        return entity.name if isinstance(entity, Provider) else getattr(entity, "id", "")

    def principal(self, key: Key, provider_config: str = "") -> Principal:
        """The governed path of a key. Tags of the customer, team and key; the nearest wins."""
        tags: dict[str, str] = {}
        for uid in (key.customer, key.team):
            entity = self.entities.get(uid)
            if isinstance(entity, Customer | Team):
                tags |= entity.tags
        return Principal(
            org=key.org,
            customer=key.customer,
            team=key.team,
            key=key.uid,
            provider_config=provider_config,
            tags=tags | key.tags,
        )

    def rules_on(self, principal: Principal) -> Iterator[tuple[str, str, BudgetRule]]:
        """(scope, scope_uid, rule) of every budget on the path, widest scope first."""
        for scope, uid in (
            ("org", principal.org),
            ("customer", principal.customer),
            ("team", principal.team),
            ("key", principal.key),
        ):
            entity = self.entities.get(uid)
            if isinstance(entity, Org | Customer | Team | Key):
                yield from ((scope, uid, rule) for rule in entity.budgets)
        if config := self.provider_config(principal):
            yield from (("provider_config", config.uid, rule) for rule in config.budgets)

    def rate_limited(self, principal: Principal) -> bool:
        """Whether any rate limit is on the path, for whatever model."""
        path = (principal.org, principal.customer, principal.team, principal.key)
        found = (self.entities.get(uid) for uid in path)
        return any(isinstance(e, Org | Customer | Team | Key) and e.rate_limits != RateLimits() for e in found)

    def provider_config(self, principal: Principal) -> ProviderConfig | None:
        entity = self.entities.get(principal.key)
        if not isinstance(entity, Key) or not principal.provider_config:
            return None
        return next((c for c in entity.providers if c.uid == principal.provider_config), None)

    def all_rules(self) -> Iterator[tuple[str, str, str, BudgetRule]]:
        """(org, scope, scope_uid, rule) of every budget there is."""
        for entity in self.entities.values():
            if isinstance(entity, Org):
                yield from ((entity.uid, "org", entity.uid, rule) for rule in entity.budgets)
            elif isinstance(entity, Customer | Team | Key):
                scope = type(entity).__name__.lower()
                yield from ((entity.org, scope, entity.uid, rule) for rule in entity.budgets)
                if isinstance(entity, Key):
                    for config in entity.providers:
                        yield from ((entity.org, "provider_config", config.uid, rule) for rule in config.budgets)

    def shard(self, org: str) -> str:
        """Where an organisation lives; one that is not known here is looked for where all begin."""
        entity = self.entities.get(org)
        return entity.shard if isinstance(entity, Org) else DEFAULT_SHARD

    def first_shard(self, org: str) -> str:
        """Where an organisation was made."""
        homes = self.homes.get(org)
        return homes[0][1] if homes else DEFAULT_SHARD

    def shards(self) -> tuple[str, ...]:
        """Every shard that an organisation lives in; the default one always."""
        found = {entity.shard for entity in self.entities.values() if isinstance(entity, Org)}
        return tuple(sorted(found | {DEFAULT_SHARD}))

    def shards_ever(self) -> set[str]:
        """Those too that every organisation has left: what was begun there is still told there."""
        return {shard for homes in self.homes.values() for _, shard in homes} | {DEFAULT_SHARD}

    def contact(self, principal: Principal) -> str:
        """Whom to ask: the nearest contact on the path, from the key up."""
        for uid in (principal.key, principal.team, principal.customer, principal.org):
            entity = self.entities.get(uid)
            if isinstance(entity, Org | Customer | Team | Key) and entity.contact:
                return entity.contact
        return ""


def allows(patterns: tuple[str, ...], value: str) -> bool:
    """Whether a shell pattern of the list matches; an empty list allows all."""
    return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)
