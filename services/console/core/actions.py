"""Actions on one key or budget: revoke, rotate, change a limit."""

from collections.abc import Callable

import msgspec

from services.console import api
from services.console.core import describe, entities
from services.console.core.changes import ChangeSet, MadeSecret, one
from services.console.core.document import typed
from services.console.core.entities import NewUid
from services.console.core.money import usd_of
from services.console.core.paths import kind_of, org_uid_of, path_of, provider_uid_in
from services.console.core.problem import Invalid
from services.console.core.rules import budget_rules
from shared.contracts import organisation
from shared.contracts.config import BudgetRule, Customer, Entity, Key, Org, Team
from shared.directory import Directory


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a new thing is made with."""

    uid: NewUid
    secret: Callable[[], str]
    now: int


def revoke(directory: Directory, key: Key, now: int) -> ChangeSet:
    """For good. Revoking again changes nothing."""
    if key.revoked_at:
        return ChangeSet()
    return one(directory, key, msgspec.structs.replace(key, revoked_at=now), path_of(directory, key))


def rotate(directory: Directory, key: Key, overlap_seconds: int, made: Made) -> ChangeSet:
    """A new secret; those so far work for overlap_seconds more, the outlived ones are dropped."""
    if key.revoked_at:
        raise Invalid("", "this key is revoked: make a new one", "key_revoked", 409)
    end = max(made.now + overlap_seconds * 1_000_000, 1)
    living = (s for s in key.secrets if not s.valid_until or s.valid_until > made.now)
    ending = tuple(msgspec.structs.replace(s, valid_until=min(s.valid_until or end, end)) for s in living)
    secret = made.secret()
    fresh = entities.secret_of(secret, made.uid(), made.now)
    path = path_of(directory, key)
    after = msgspec.structs.replace(key, secrets=(*(s for s in ending if s.valid_until > made.now), fresh))
    told = (MadeSecret(key=path, uid=key.uid, secret=secret),)
    return msgspec.structs.replace(one(directory, key, after, path), secrets=told)


def change_budget(directory: Directory, budget_id: str, patch: api.BudgetPatch) -> ChangeSet:
    """The rule of that id, with its counters; found on whichever entity has it."""
    entity, rule = find_rule(directory, budget_id)
    if patch.limit_usd is not None and patch.limit_nano_usd is not None:
        raise Invalid("limit_usd", "give `limit_usd` or `limit_nano_usd`, not both")
    given: dict[str, object] = {
        name: value
        for name in patch.__struct_fields__
        if name != "limit_nano_usd" and (value := getattr(patch, name)) is not None
    }
    if patch.limit_nano_usd is not None:
        given["limit_usd"] = usd_of(patch.limit_nano_usd)
    budget = typed(organisation.Budget, describe.budget_tree(rule) | given)
    scope, uid = rule.id.split(":")[:2]
    made = budget_rules((budget,), scope, uid, "", provider_uid_in(directory, org_uid_of(entity)))[0]
    after = _with_rule(entity, msgspec.structs.replace(made, id=rule.id, contact=rule.contact))
    return one(directory, entity, after, path_of(directory, entity))


def find_rule(directory: Directory, budget_id: str) -> tuple[Org | Customer | Team | Key, BudgetRule]:
    """By id; its second part may also be the slug or path of the entity."""
    scope, _, rest = budget_id.partition(":")
    named, _, period = rest.partition(":")
    for entity in directory.entities.values():
        if not isinstance(entity, Org | Customer | Team | Key):
            continue
        for rule in _rules(entity):
            if rule.id == budget_id or (
                scope == kind_of(entity)
                and named in (entity.id, path_of(directory, entity))
                and rule.id == f"{scope}:{entity.uid}:{period}"
            ):
                return entity, rule
    raise Invalid("id", f"there is no budget `{budget_id}`", "not_found", 404)


def _rules(entity: Org | Customer | Team | Key) -> tuple[BudgetRule, ...]:
    inner = tuple(rule for part in entity.providers for rule in part.budgets) if isinstance(entity, Key) else ()
    return entity.budgets + inner


def _with_rule(entity: Org | Customer | Team | Key, made: BudgetRule) -> Entity:
    def put(rules: tuple[BudgetRule, ...]) -> tuple[BudgetRule, ...]:
        return tuple(made if rule.id == made.id else rule for rule in rules)

    after = msgspec.structs.replace(entity, budgets=put(entity.budgets))
    if isinstance(after, Key):
        parts = tuple(msgspec.structs.replace(part, budgets=put(part.budgets)) for part in after.providers)
        return msgspec.structs.replace(after, providers=parts)
    return after
