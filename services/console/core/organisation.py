"""What applying a document changes: the document beside the directory. Never touches a counter, a secret or a uid."""

from collections.abc import Callable

import msgspec

from services.console.core import entities, prices
from services.console.core.changes import Change, ChangeSet, MadeSecret, put, row
from services.console.core.document import parse_organisation
from services.console.core.entities import NewUid, Place
from services.console.core.paths import children, kind_of, of_org, org_named, path_of
from services.console.core.problem import Invalid
from services.console.core.rules import budget_rules, rate_limits
from shared.contracts import config, organisation
from shared.contracts.budget import DEFAULT_SHARD
from shared.contracts.config import Entity
from shared.directory import Directory

__all__ = ["diff", "parse_organisation"]

MANAGED_BY = "file"


def diff(
    directory: Directory,
    document: organisation.Organisation,
    *,
    new_uid: NewUid,
    new_secret: Callable[[], str],
    now: int,
    prune: bool = False,
) -> ChangeSet:
    """Entities are matched by slug path; what the document leaves out is deleted if a file made it, or with `prune`.

    Raises Invalid naming the field.
    """
    return _Difference(directory, document, new_uid, new_secret, now, prune).found()


class _Difference:
    """One comparison on its way through the document, parents first."""

    def __init__(
        self,
        directory: Directory,
        document: organisation.Organisation,
        new_uid: NewUid,
        new_secret: Callable[[], str],
        now: int,
        prune: bool,
    ) -> None:
        self._directory, self._document = directory, document
        self._new_uid, self._new_secret, self._now, self._prune = new_uid, new_secret, now, prune
        self._org = org_named(directory, document.org.id)
        self._org_uid = self._org.uid if self._org else new_uid()
        self._old = of_org(directory, self._org_uid)
        self._others = {name: e for name, e in self._old.items() if e.managed_by != MANAGED_BY}
        self._wanted: dict[tuple[str, str], Entity] = {}
        self._puts: list[Entity] = []
        self._rows: list[Change] = []
        self._secrets: list[MadeSecret] = []

    def found(self) -> ChangeSet:
        for index, part in enumerate(self._document.providers):
            place = self._place("provider", part.name, f"providers[{index}].name")
            self._want(part.name, entities.provider(part, place, f"providers[{index}]."))
        self._tenant()
        for index, customer in enumerate(self._document.customers):
            self._customer(customer, f"customers[{index}]")
        self._prices()
        deletes = self._deletes()
        self._check_secrets(set(deletes))
        return ChangeSet(
            puts=tuple(self._puts),
            deletes=tuple(deletes),
            changes=tuple(self._rows),
            secrets=tuple(self._secrets),
        )

    def _tenant(self) -> None:
        head = self._document.org
        if self._org and head.shard not in ("", self._org.shard):
            where = f"the organisation lives in shard {self._org.shard}; a file says only where a new one begins"
            raise Invalid("org.shard", where, "shard_fixed")
        made = config.Org(
            uid=self._org_uid,
            id=head.id,
            contact=self._document.contact,
            budgets=budget_rules(head.budgets, "org", self._org_uid, "org.budgets", self._provider_uid),
            rate_limits=rate_limits(head.rate_limits, "org.rate_limits"),
            shard=self._org.shard if self._org else head.shard or DEFAULT_SHARD,
            managed_by=MANAGED_BY,
            revision=self._org.revision if self._org else 0,
        )
        self._put(self._org, made, head.id)

    def _customer(self, part: organisation.Customer, where: str) -> None:
        place = self._place("customer", part.id, f"{where}.id")
        made = entities.customer(part, place, f"{where}.", self._provider_uid)
        self._want(part.id, made)
        for index, team in enumerate(part.teams):
            self._team(team, made, part.id, f"{where}.teams[{index}]")

    def _team(self, part: organisation.Team, parent: config.Customer, above: str, where: str) -> None:
        path = f"{above}/{part.id}"
        made = entities.team(part, self._place("team", path, f"{where}.id"), parent, f"{where}.", self._provider_uid)
        self._want(path, made)
        for index, key in enumerate(part.keys):
            self._key(key, made, path, f"{where}.keys[{index}]")

    def _key(self, part: organisation.Key, parent: config.Team, above: str, where: str) -> None:
        path = f"{above}/{part.id}"
        place = self._place("key", path, f"{where}.id")
        old = self._old.get(("key", path))
        assert old is None or isinstance(old, config.Key)
        made = entities.key(part, place, parent, old, f"{where}.", self._provider_uid, self._new_uid)
        if not made.secrets:
            secret = self._new_secret()
            made = msgspec.structs.replace(made, secrets=(entities.secret_of(secret, self._new_uid(), self._now),))
            self._secrets.append(MadeSecret(key=path, uid=made.uid, secret=secret))
        self._want(path, made)

    def _prices(self) -> None:
        old = {prices.sameness(e): e for e in self._old.values() if isinstance(e, config.PriceOverride)}
        seen: set[tuple[object, ...]] = set()
        for index, part in enumerate(self._document.prices):
            where = f"prices[{index}]"
            place = Place(uid="", org=self._org_uid, managed_by=MANAGED_BY)
            made = prices.price(part, place, f"{where}.", self._provider_uid, self._scope_uid)
            same = prices.sameness(made)
            if same in seen:
                raise Invalid(where, "a price for the same scope, models and day stands above")
            seen.add(same)
            before = old.get(same)
            uid, revision = (before.uid, before.revision) if before else (self._new_uid(), 0)
            made = msgspec.structs.replace(made, uid=uid, revision=revision)
            self._wanted["price", uid] = made
            self._put(before, made, "/".join(filter(None, (part.scope, part.provider, *part.models))))

    def _place(self, kind: str, path: str, where: str) -> Place:
        if (kind, path) in self._wanted:
            raise Invalid(where, f"{kind} `{path}` stands twice", "doubled_id")
        old = self._old.get((kind, path))
        return Place(
            uid=old.uid if old else self._new_uid(),
            org=self._org_uid,
            managed_by=MANAGED_BY,
            revision=old.revision if old else 0,
        )

    def _want(self, path: str, made: Entity) -> None:
        self._wanted[kind_of(made), path] = made
        self._put(self._old.get((kind_of(made), path)), made, path)

    def _put(self, before: Entity | None, made: Entity, path: str) -> None:
        if found := put(before, made):
            entity, fields = found
            self._puts.append(entity)
            self._rows.append(row(self._directory, "change" if before else "create", entity, path, fields))

    def _deletes(self) -> list[str]:
        """What is gone from the document; a parent stays while something below it is managed elsewhere."""
        gone = {
            entity.uid: entity
            for name, entity in self._old.items()
            if name not in self._wanted and (self._prune or entity.managed_by == MANAGED_BY)
        }
        kept = [e for e in gone.values() if any(c.uid not in gone for c in children(self._directory, e))]
        for entity in kept:
            del gone[entity.uid]
        self._rows += [row(self._directory, "keep", entity) for entity in kept]
        self._rows += [row(self._directory, "delete", entity) for entity in gone.values()]
        self._check_references(gone)
        return list(gone)

    def _check_references(self, gone: dict[str, Entity]) -> None:
        """What stays must not point at a provider that goes."""
        for entity in self._old.values():
            if entity.uid in gone or not isinstance(entity, config.Key):
                continue
            if ("key", path_of(self._directory, entity)) in self._wanted:
                continue
            for part in entity.providers:
                if part.provider in gone:
                    path = path_of(self._directory, entity)
                    raise Invalid("providers", f"`{self._directory.name(part.provider)}` is still used by key {path}")

    def _check_secrets(self, deleted: set[str]) -> None:
        """One secret is one key's, in whichever organisation."""
        holders: dict[bytes, str] = {}
        for entity in (e for e in self._wanted.values() if isinstance(e, config.Key)):
            for secret in entity.secrets:
                known = self._directory.key_of_secret(secret.hash)
                other = known is not None and known[0].uid != entity.uid and known[0].uid not in deleted
                if other or secret.hash in holders:
                    raise Invalid("secret", f"key `{entity.id}` has the secret of another key", "secret_taken")
                holders[secret.hash] = entity.uid

    def _provider_uid(self, name: str, where: str) -> str:
        return self._scope_uid("provider", name, where)

    def _scope_uid(self, kind: str, name: str, where: str) -> str:
        """By path or slug, among what the document holds, then among what others manage and this leaves alone."""
        staying = {} if self._prune else {n: e for n, e in self._others.items() if n not in self._wanted}
        for known in (self._wanted, staying):
            if exact := known.get((kind, name)):
                return exact.uid
            found = [e for (k, path), e in known.items() if k == kind and name == path.rpartition("/")[2]]
            if len(found) == 1:
                return found[0].uid
            if found:
                raise Invalid(where, f"{kind} `{name}` is ambiguous: write its path, like acme/platform", "ambiguous")
        raise Invalid(where, f"there is no {kind} `{name}`", "unknown_reference")
