"""Names people use for entities: slug paths like `acme/platform/dev-asha`, and how they are looked up."""

from typing import TypeVar

from services.console.core.problem import Invalid
from services.console.core.rules import ProviderUid
from shared.contracts.config import Customer, Entity, Grant, Key, Org, PriceOverride, Provider, Team
from shared.directory import Directory

E = TypeVar("E", bound=Entity)


def kind_of(entity: Entity) -> str:
    """org, customer, team, key, provider, price or grant."""
    return "price" if isinstance(entity, PriceOverride) else type(entity).__name__.lower()


def slug_of(entity: Entity) -> str:
    """The name among siblings; prices and grants have none."""
    if isinstance(entity, PriceOverride | Grant):
        return ""
    return entity.name if isinstance(entity, Provider) else entity.id


def path_of(directory: Directory, entity: Entity) -> str:
    """`acme/platform/dev-asha`: slugs from the customer down."""
    if isinstance(entity, PriceOverride):
        return "/".join(
            filter(None, (scope_name(directory, entity.scope), directory.name(entity.provider), *entity.models))
        )
    parents: tuple[str, ...] = ()
    if isinstance(entity, Team):
        parents = (entity.customer,)
    elif isinstance(entity, Key):
        parents = (entity.customer, entity.team)
    return "/".join((*(directory.name(uid) or uid for uid in parents), slug_of(entity)))


def scope_name(directory: Directory, scope: str) -> str:
    """A price's scope with names for uids: `customer:acme`, `team:acme/platform`."""
    kind, _, uid = scope.partition(":")
    entity = directory.entities.get(uid)
    return f"{kind}:{path_of(directory, entity) if entity else uid}" if kind else ""


def of_org(directory: Directory, org_uid: str) -> dict[tuple[str, str], Entity]:
    """All that a document can hold of one organisation, by (kind, path); prices, which have no name, by (price, uid)."""
    found: dict[tuple[str, str], Entity] = {}
    for entity in directory.entities.values():
        if isinstance(entity, PriceOverride):
            if entity.org == org_uid:
                found["price", entity.uid] = entity
        elif not isinstance(entity, Org | Grant) and entity.org == org_uid:
            found[kind_of(entity), path_of(directory, entity)] = entity
    return found


def org_named(directory: Directory, slug: str) -> Org | None:
    return next((e for e in directory.entities.values() if isinstance(e, Org) and slug in (e.id, e.uid)), None)


def find(directory: Directory, kind: type[E], name: str, field: str = "id") -> E:
    """By uid, slug or path. Raises Invalid: not_found 404, or ambiguous 409 naming the paths."""
    exact = directory.entities.get(name)
    if isinstance(exact, kind):
        return exact
    found = [
        entity
        for entity in directory.entities.values()
        if isinstance(entity, kind) and name and name in (slug_of(entity), path_of(directory, entity))
    ]
    if not found:
        raise Invalid(field, f"there is no {kind.__name__.lower()} `{name}`", "not_found", 404)
    if len(found) > 1:
        paths = ", ".join(sorted(path_of(directory, entity) for entity in found))
        raise Invalid(field, f"`{name}` is ambiguous, it could be {paths}", "ambiguous", 409)
    return found[0]


def children(directory: Directory, entity: Entity) -> list[Entity]:
    """What hangs below it: teams and keys of a customer, keys of a team."""
    if isinstance(entity, Customer):
        return [e for e in directory.entities.values() if isinstance(e, Team | Key) and e.customer == entity.uid]
    if isinstance(entity, Team):
        return [e for e in directory.entities.values() if isinstance(e, Key) and e.team == entity.uid]
    return []


def org_uid_of(entity: Entity) -> str:
    return entity.uid if isinstance(entity, Org) else entity.org


def provider_uid_in(directory: Directory, org: str) -> ProviderUid:
    def resolve(name: str, where: str) -> str:
        provider = directory.provider_named(org, name)
        if provider is None:
            raise Invalid(where, f"there is no provider `{name}`", "unknown_reference")
        return provider.uid

    return resolve
