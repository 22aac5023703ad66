"""A set of changes: what it holds, how it is told to people, and how it is cut into messages."""

from typing import Literal

import msgspec

from services.console.core.paths import kind_of, path_of
from services.console.core.recount import warnings
from shared.contracts.config import ConfigChanged, Entity
from shared.directory import Directory

MESSAGE_BYTES = 900_000  # JetStream refuses above 1 MiB, headers included
UID_BYTES = 28
HEAD_BYTES = 10_000  # version, revision, actor, reason and the lengths of the arrays

Action = Literal["create", "change", "delete", "keep"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a difference. keep: not in the file, but something below it is managed elsewhere.

    warnings: budgets whose count begins anew.
    """

    action: Action
    kind: str
    id: str
    path: str
    uid: str
    fields: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class MadeSecret(msgspec.Struct, frozen=True, kw_only=True):
    """The secret of a virtual key, told this once. key: its path."""

    key: str
    uid: str
    secret: str


class ChangeSet(msgspec.Struct, frozen=True, kw_only=True):
    """What is put and deleted, the same in words, and the secrets made on the way."""

    puts: tuple[Entity, ...] = ()
    deletes: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    secrets: tuple[MadeSecret, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.puts and not self.deletes


def put(before: Entity | None, made: Entity) -> tuple[Entity, tuple[str, ...]] | None:
    """The entity with its next revision and the fields that changed; None where nothing did."""
    if before is None:
        return msgspec.structs.replace(made, revision=1), ()
    fields = changed_fields(before, made)
    return (msgspec.structs.replace(made, revision=before.revision + 1), fields) if fields else None


def changed_fields(before: Entity, after: Entity) -> tuple[str, ...]:
    return tuple(
        name for name in after.__struct_fields__ if name != "revision" and getattr(before, name) != getattr(after, name)
    )


def row(directory: Directory, action: Action, entity: Entity, path: str = "", fields: tuple[str, ...] = ()) -> Change:
    path = path or path_of(directory, entity)
    return Change(
        action=action,
        kind=kind_of(entity),
        id=path.rpartition("/")[2],
        path=path,
        uid=entity.uid,
        fields=fields,
        warnings=warnings(directory.entities.get(entity.uid), entity) if action == "change" else (),
    )


def one(directory: Directory, before: Entity | None, made: Entity, path: str) -> ChangeSet:
    """The set of a single entity made or changed; empty where nothing changes."""
    if (found := put(before, made)) is None:
        return ChangeSet()
    entity, fields = found
    action: Action = "change" if before else "create"
    return ChangeSet(puts=(entity,), changes=(row(directory, action, entity, path, fields),))


def messages(changes: ChangeSet, config_rev: int, at: int, actor: str, reason: str = "") -> list[ConfigChanged]:
    """Cut into messages below MESSAGE_BYTES; all but the last say `more`. Deletes come first."""
    sizes: list[tuple[int, str | Entity]] = [(UID_BYTES, uid) for uid in changes.deletes]
    sizes += [(len(_encoder.encode(entity)), entity) for entity in changes.puts]
    groups: list[list[str | Entity]] = [[]]
    room = MESSAGE_BYTES - HEAD_BYTES
    for size, item in sizes:
        if size > room and groups[-1]:
            groups.append([])
            room = MESSAGE_BYTES - HEAD_BYTES
        groups[-1].append(item)
        room -= size
    return [
        ConfigChanged(
            config_rev=config_rev,
            at=at,
            actor=actor,
            reason=reason,
            deletes=tuple(item for item in group if isinstance(item, str)),
            puts=tuple(item for item in group if not isinstance(item, str)),
            more=group is not groups[-1],
        )
        for group in groups
    ]


_encoder = msgspec.msgpack.Encoder()
