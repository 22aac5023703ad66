"""Messages of the source logs as audit entries: uids and figures, never names, prompts, secrets or their hashes."""

from shared.contracts.audit import AuditEntry
from shared.contracts.config import BudgetRule, ConfigChanged, Entity, Grant, Key, Org, PriceOverride
from shared.contracts.edge import RequestCompleted
from shared.contracts.ledger import Commit, Decided, EpochBegan, Held, Lapsed
from shared.contracts.streams import CONFIG, LEDGER, REQUESTS
from shared.directory import Directory

DETAIL_CHARACTERS = 200  # model names and reasons come from outside
TOLD = ("refused", "rejected", "unavailable")
"""Verdicts of requests that become entries; admissions are told by the ledger, free requests are no decision."""

Details = dict[str, str | int | bool]


def of_commit(commit: Commit, seq: int) -> tuple[AuditEntry, ...]:
    """Admissions, blocks, ended grants and changes of owner in one record of LEDGER."""
    found: list[AuditEntry] = []
    for event in commit.events:
        if isinstance(event, Held):
            found.append(_admitted(event, seq))
        elif isinstance(event, Decided):
            details: Details = {"scope": event.scope, "version": event.version}
            found.append(
                _entry(event.at, event.state, f"budget:{event.budget_id}", "owner", (LEDGER, seq), details=details)
            )
        elif isinstance(event, Lapsed):
            details = {"budget_id": event.budget_id, "used_nano_usd": event.used_nano_usd}
            found.append(_entry(event.at, "lapsed", f"grant:{event.grant}", "owner", (LEDGER, seq), details=details))
        elif isinstance(event, EpochBegan):
            details = {"owner_epoch": event.owner_epoch}
            found.append(
                _entry(event.at, "epoch_began", f"shard:{commit.shard}", "owner", (LEDGER, seq), details=details)
            )
    return tuple(found)


def _admitted(held: Held, seq: int) -> AuditEntry:
    details: Details = {
        "rid": held.rid,
        "request_id": held.request_id,
        "attempt": held.attempt,
        "provider": held.provider,
        "model": held.model,
        "held_nano_usd": held.nano_usd,
        "stream": held.stream,
        "price_version": held.price_version,
        "config_rev": held.config_rev,
        "budgets": ",".join(charge.budget_id for charge in held.charges),
    }
    who = f"key:{held.principal.key}"
    return _entry(held.admitted_at, "admitted", who, who, (LEDGER, seq), held.principal.org, details)


def of_request(done: RequestCompleted, seq: int) -> tuple[AuditEntry, ...]:
    """Requests that were not let in. An unknown credential has no key: its subject is the door."""
    if done.verdict not in TOLD:
        return ()
    details: Details = {
        "request_id": done.request_id,
        "reason": done.reason,
        "budget_id": done.budget_id,
        "status": done.status,
        "error_type": done.error_type,
        "operation": done.operation,
        "model": done.request_model,
        "edge": done.edge,
    }
    who = f"key:{done.principal.key}" if done.principal.key else "door"
    return (_entry(done.closed_at, done.verdict, who, who, (REQUESTS, seq), done.principal.org, details),)


class ConfigChanges:
    """Folds CONFIG from its beginning, so that a change can be told from a making, and its fields named."""

    def __init__(self) -> None:
        self._directory = Directory()
        self._parts: list[ConfigChanged] = []

    def fold(self, change: ConfigChanged, seq: int) -> tuple[AuditEntry, ...] | None:
        """The entries of the change set that this message completes; None while it waits for more."""
        if self._parts and self._parts[0].config_rev != change.config_rev:
            self._parts.clear()  # broken off: it never came into force
        self._parts.append(change)
        before = dict(self._directory.entities)
        if not self._directory.apply(change):
            return None
        parts, self._parts = self._parts, []
        found: list[AuditEntry] = []
        for part in parts:
            found += [_changed(part, "deleted", before[uid], seq, {}) for uid in part.deletes if uid in before]
            for entity in part.puts:
                old = before.get(entity.uid)
                found.append(_changed(part, "changed" if old else "created", entity, seq, _difference(old, entity)))
        return tuple(found)


def _changed(change: ConfigChanged, action: str, entity: Entity, seq: int, details: Details) -> AuditEntry:
    kind = "price" if isinstance(entity, PriceOverride) else type(entity).__name__.lower()
    told: Details = {"config_rev": change.config_rev, "revision": entity.revision}
    told |= {"reason": change.reason} if change.reason else {}
    org = entity.uid if isinstance(entity, Org) else entity.org
    return _entry(change.at, action, f"{kind}:{entity.uid}", change.actor, (CONFIG, seq), org, told | details)


def _difference(old: Entity | None, new: Entity) -> Details:
    """Names of changed fields, and the limits of budgets: who raised a cap is what is asked for first."""
    if isinstance(new, Grant):  # a note is people's own text
        return {"budget_id": new.budget_id, "nano_usd": new.nano_usd, "expires_at": new.expires_at}
    if old is None:
        return {f"limit {rule.id}": rule.limit_nano_usd for rule in _rules(new)}
    fields = [
        name for name in new.__struct_fields__ if name != "revision" and getattr(old, name, None) != getattr(new, name)
    ]
    before, after = ({rule.id: rule.limit_nano_usd for rule in _rules(entity)} for entity in (old, new))
    limits: Details = {
        f"limit {name}": f"{before.get(name, 'none')} -> {after.get(name, 'none')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
    return {"fields": ",".join(fields)} | limits


def _rules(entity: Entity) -> tuple[BudgetRule, ...]:
    inner = tuple(rule for part in entity.providers for rule in part.budgets) if isinstance(entity, Key) else ()
    return (*getattr(entity, "budgets", ()), *inner)


def log_replaced(source: str, before: str, now: str, covered: int, at: int) -> AuditEntry:
    """A source log is another one than before: what it held beyond `covered` is not in this chain."""
    details: Details = {"former": before, "present": now, "covered": covered}
    return _entry(at, "log_replaced", f"log:{source}", "audit", (source, 0), details=details)


def _entry(
    at: int,
    action: str,
    subject: str,
    actor: str,
    source: tuple[str, int],
    org: str = "",
    details: Details | None = None,
) -> AuditEntry:
    short = {
        name: value[:DETAIL_CHARACTERS] if isinstance(value, str) else value for name, value in (details or {}).items()
    }
    return AuditEntry(
        at=at,
        action=action,
        subject=subject,
        actor=actor,
        source=source[0],
        source_seq=source[1],
        org=org,
        details=short,
    )
