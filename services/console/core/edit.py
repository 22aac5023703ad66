"""Single changes to the organisation: make, change or delete one entity."""

from typing import TypeVar

import msgspec

from services.console import api
from services.console.core import describe, entities, prices
from services.console.core.actions import Made
from services.console.core.changes import ChangeSet, MadeSecret, one, row
from services.console.core.document import typed
from services.console.core.entities import NewUid, Place
from services.console.core.paths import (
    children,
    find,
    kind_of,
    org_named,
    org_uid_of,
    path_of,
    provider_uid_in,
    slug_of,
)
from services.console.core.problem import Invalid
from shared.contracts import organisation
from shared.contracts.config import Customer, Entity, Key, Org, PriceOverride, Provider, Team
from shared.directory import Directory

MANAGED_BY = "console"
Tree = dict[str, object]
Parts = api.CustomerBody | api.TeamBody | api.KeyBody | api.ProviderBody | api.PriceBody
P = TypeVar("P", bound=Parts)


def create(directory: Directory, body: Parts, made: Made) -> ChangeSet:
    """A new entity below its parent. Raises Invalid: id_taken 409, not_found 404 for the parent."""
    if isinstance(body, api.KeyBody):
        return _create_key(directory, body, made)
    org = _org_of(directory, body)
    place = Place(uid=made.uid(), org=org.uid, managed_by=MANAGED_BY)
    entity = _compiled(directory, body, place, None, made.uid)
    _free(directory, entity)
    return one(directory, None, entity, path_of(directory, entity))


def _create_key(directory: Directory, body: api.KeyBody, made: Made) -> ChangeSet:
    team = find(directory, Team, body.team, "team")
    place = Place(uid=made.uid(), org=team.org, managed_by=MANAGED_BY)
    key = _key(directory, body, place, team, None, made.uid)
    secrets: tuple[MadeSecret, ...] = ()
    path = path_of(directory, key)
    if not key.secrets:
        secret = made.secret()
        key = msgspec.structs.replace(key, secrets=(entities.secret_of(secret, made.uid(), made.now),))
        secrets = (MadeSecret(key=path, uid=key.uid, secret=secret),)
    _free(directory, key)
    _secret_free(directory, key)
    return msgspec.structs.replace(one(directory, None, key, path), secrets=secrets)


def change(directory: Directory, entity: Entity, patch: Tree, new_uid: NewUid) -> ChangeSet:
    """Fields given replace, null takes back to the default; parents cannot change. Raises Invalid."""
    fixed = _parents(directory, entity)
    if moved := sorted(set(patch) & set(fixed)):
        raise Invalid(moved[0], "an entity cannot be moved: make it anew where it belongs", "immutable_field")
    tree = describe.tree(directory, entity) | fixed
    for name, value in patch.items():
        if value is None:
            tree.pop(name, None)
        else:
            tree[name] = value
    if isinstance(entity, PriceOverride):
        _one_price(patch, tree)
    if isinstance(entity, Provider) and "credential" in patch:
        tree.pop("credentials", None)
    body: Parts = typed(BODIES[kind_of(entity)], tree)
    place = Place(uid=entity.uid, org=org_uid_of(entity), managed_by=entity.managed_by, revision=entity.revision)
    after = _compiled(directory, body, place, entity, new_uid)
    _free(directory, after)
    if isinstance(after, Key):
        _secret_free(directory, after)
    return one(directory, entity, after, path_of(directory, entity))


def _one_price(patch: Tree, tree: Tree) -> None:
    """A percentage given takes the place of a card, and the other way round."""
    for given, other in (("percent", "usd_per_million"), ("usd_per_million", "percent")):
        if given in patch and other not in patch:
            tree.pop(other, None)


def remove(directory: Directory, entity: Entity, cascade: bool) -> ChangeSet:
    """Raises Invalid in_use 409: something hangs below it (without cascade), or a key still names the provider."""
    below = children(directory, entity)
    if below and not cascade:
        raise Invalid("", f"{len(below)} teams or keys are below it: delete with cascade=true", "in_use", 409)
    if isinstance(entity, Provider):
        for user in directory.entities.values():
            if isinstance(user, Key) and any(part.provider == entity.uid for part in user.providers):
                raise Invalid("", f"key {path_of(directory, user)} still names it", "in_use", 409)
    gone = (*below, entity)
    return ChangeSet(deletes=tuple(e.uid for e in gone), changes=tuple(row(directory, "delete", e) for e in gone))


BODIES: dict[str, type[Parts]] = {
    "customer": api.CustomerBody,
    "team": api.TeamBody,
    "key": api.KeyBody,
    "provider": api.ProviderBody,
    "price": api.PriceBody,
}


def _compiled(directory: Directory, body: Parts, place: Place, old: Entity | None, new_uid: NewUid) -> Entity:
    provider_uid = provider_uid_in(directory, place.org)
    if isinstance(body, api.CustomerBody):
        return entities.customer(_part(organisation.Customer, body, "org"), place, "", provider_uid)
    if isinstance(body, api.TeamBody):
        parent = find(directory, Customer, body.customer, "customer")
        return entities.team(_part(organisation.Team, body, "customer"), place, parent, "", provider_uid)
    if isinstance(body, api.KeyBody):
        assert old is None or isinstance(old, Key)
        return _key(directory, body, place, find(directory, Team, body.team, "team"), old, new_uid)
    if isinstance(body, api.ProviderBody):
        return entities.provider(body, place, "")
    return prices.price(body, place, "", provider_uid, _scope_uid_in(directory, place.org))


def _key(directory: Directory, body: api.KeyBody, place: Place, team: Team, old: Key | None, new_uid: NewUid) -> Key:
    return entities.key(body, place, team, old, "", provider_uid_in(directory, place.org), new_uid)


D = TypeVar("D", organisation.Customer, organisation.Team)


def _part(kind: type[D], body: msgspec.Struct, parent: str) -> D:
    """The body as its part of the document."""
    return kind(**{name: getattr(body, name) for name in body.__struct_fields__ if name != parent})


def _org_of(directory: Directory, body: Parts) -> Org:
    if isinstance(body, api.TeamBody):
        named = find(directory, Customer, body.customer, "customer").org
    else:
        assert not isinstance(body, api.KeyBody)
        named = body.org
    if (org := org_named(directory, named)) is None:
        raise Invalid("org", f"there is no organisation `{named}`: apply one first", "not_found", 404)
    return org


def _parents(directory: Directory, entity: Entity) -> Tree:
    """The fields that say where it stands, by uid."""
    if isinstance(entity, Team):
        return {"customer": entity.customer}
    if isinstance(entity, Key):
        return {"team": entity.team}
    return {"org": org_uid_of(entity)}


def _free(directory: Directory, entity: Entity) -> None:
    """Siblings have different slugs."""
    slug, kind, above = slug_of(entity), type(entity), _parents(directory, entity)
    for other in directory.entities.values():
        same = slug and other.uid != entity.uid and isinstance(other, kind) and slug_of(other) == slug
        if same and _parents(directory, other) == above:
            raise Invalid("id", f"`{path_of(directory, other)}` is there already", "id_taken", 409)


def _secret_free(directory: Directory, key: Key) -> None:
    for secret in key.secrets:
        known = directory.key_of_secret(secret.hash)
        if known is not None and known[0].uid != key.uid:
            raise Invalid("secret", "another key has this secret", "secret_taken", 409)


def _scope_uid_in(directory: Directory, org: str) -> prices.ScopeUid:
    kinds: dict[str, type[Customer] | type[Team] | type[Key]] = {"customer": Customer, "team": Team, "key": Key}

    def resolve(kind: str, name: str, where: str) -> str:
        if kind == "provider":
            return provider_uid_in(directory, org)(name, where)
        return find(directory, kinds[kind], name, where).uid

    return resolve
