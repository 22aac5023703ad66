"""Money on top of a limit: given, taken back, listed. Kept as entities of their own, which no document reaches."""

import msgspec

from services.console import api
from services.console.core.actions import Made, find_rule
from services.console.core.changes import ChangeSet, one
from services.console.core.money import nano_usd
from services.console.core.paths import children, find, org_uid_of
from services.console.core.problem import Invalid
from shared.clock import parse, rfc3339
from shared.contracts.config import Entity, Grant, Key
from shared.contracts.message import Micros
from shared.directory import Directory

MEMBER = ":member:"  # `RULE:member:KEY` is one key's share of a `per: member` rule
NOTE_CHARACTERS = 500


def give(directory: Directory, budget_id: str, body: api.GrantBody, actor: str, made: Made) -> ChangeSet:
    """Raises Invalid: not_found 404; below or at zero, already over, or a budget that cannot be granted 400."""
    org, budget = named(directory, budget_id)
    nano = nano_usd(body.amount_usd, "amount_usd")
    if nano == 0:
        raise Invalid("amount_usd", "a grant of nothing changes nothing")
    expires_at = _instant(body.expires_at)
    if expires_at and expires_at <= made.now:
        raise Invalid("expires_at", "this is over already")
    if len(body.note) > NOTE_CHARACTERS:
        raise Invalid("note", f"at most {NOTE_CHARACTERS} characters")
    grant = Grant(
        uid=made.uid(),
        org=org,
        budget_id=budget,
        nano_usd=nano,
        granted_at=made.now,
        expires_at=expires_at,
        note=body.note,
        actor=actor,
    )
    return one(directory, None, grant, f"{budget}/{grant.uid}")


def take_back(directory: Directory, budget_id: str, uid: str, now: Micros) -> ChangeSet:
    """It ends now: what was used of it stays paid. One that has ended is left alone, so asking again changes nothing."""
    _, budget = named(directory, budget_id)
    grant = directory.entities.get(uid)
    if not isinstance(grant, Grant) or grant.budget_id != budget:
        raise Invalid("uid", f"this budget has no grant `{uid}`", "not_found", 404)
    if 0 < grant.expires_at <= now:
        return ChangeSet()
    return one(directory, grant, msgspec.structs.replace(grant, expires_at=now), f"{budget}/{uid}")


def listed(directory: Directory, budget_id: str, now: Micros) -> tuple[api.GrantView, ...]:
    """All that were ever given to it, the newest first."""
    _, budget = named(directory, budget_id)
    found = [e for e in directory.entities.values() if isinstance(e, Grant) and e.budget_id == budget]
    return tuple(view(grant, now) for grant in sorted(found, key=lambda g: (-g.granted_at, g.uid)))


def view(grant: Grant, now: Micros) -> api.GrantView:
    return api.GrantView(
        uid=grant.uid,
        budget_id=grant.budget_id,
        amount_nano_usd=grant.nano_usd,
        granted_at=rfc3339(grant.granted_at),
        expires_at=rfc3339(grant.expires_at),
        ended=0 < grant.expires_at <= now,
        note=grant.note,
        actor=grant.actor,
    )


def named(directory: Directory, budget_id: str) -> tuple[str, str]:
    """Organisation and full id of the budget of this name; slugs and paths serve for uids. Raises Invalid."""
    if budget_id.startswith("session:"):
        raise Invalid("id", "a session's budget cannot be granted: raise the key's session_budget_usd", "not_grantable")
    rule_name, member, key_name = budget_id.partition(MEMBER)
    entity, rule = find_rule(directory, rule_name)
    if not member:
        if rule.per:
            raise Invalid("id", f"each member has a budget of its own here: name one, `{rule_name}{MEMBER}KEY`")
        return org_uid_of(entity), rule.id
    key = find(directory, Key, key_name)
    if not rule.per or not _above(directory, entity, key):
        raise Invalid("id", f"`{key_name}` has no share of `{rule_name}`", "not_found", 404)
    return key.org, f"{rule.id}{MEMBER}{key.uid}"


def _above(directory: Directory, entity: Entity, key: Key) -> bool:
    return key.org == entity.uid or key in children(directory, entity)


def _instant(text: str) -> Micros:
    try:
        return parse(text) if text else 0
    except ValueError:
        raise Invalid("expires_at", f"`{text[:40]}` is not a date like 2026-12-01 or an RFC 3339 instant") from None
