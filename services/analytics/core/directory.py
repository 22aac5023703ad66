"""Change sets of CONFIG as rows of directory_v1: the last state of every entity, deleted ones too."""

import msgspec

from services.analytics.core.tables import Column, Table
from shared.contracts.config import ConfigChanged, Customer, Entity, Grant, Key, Org, PriceOverride, Provider, Team

TEXT, NAME, TIME = "String", "LowCardinality(String)", "DateTime64(6, 'UTC')"


class DirectoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One entity after one revision. The uids are those above it; kind is also that of budgets' scopes."""

    uid: str
    kind: str
    id: str
    owner: str = ""
    org_uid: str = ""
    customer_uid: str = ""
    team_uid: str = ""
    key_uid: str = ""
    provider_uid: str = ""
    deleted: bool = False
    config_rev: int = 0
    changed_at: int = 0
    log_id: str = ""
    stream_seq: int = 0


class Names:
    """Folds CONFIG from its beginning and gives the rows of each completed change set."""

    def __init__(self, log_id: str) -> None:
        self._log_id = log_id
        self._rows: dict[str, DirectoryRow] = {}
        self._parts: list[ConfigChanged] = []

    def fold(self, change: ConfigChanged, stream_seq: int) -> list[DirectoryRow]:
        """Rows of the set that this message completes; a set broken off is dropped by the next revision."""
        if self._parts and self._parts[0].config_rev != change.config_rev:
            self._parts.clear()
        self._parts.append(change)
        if change.more:
            return []
        changed: dict[str, DirectoryRow] = {}
        for part in self._parts:
            for uid in part.deletes:
                if row := self._rows.get(uid):
                    changed[uid] = msgspec.structs.replace(row, deleted=True)
            for entity in part.puts:
                changed.update((row.uid, row) for row in self._entity_rows(entity))
        self._parts.clear()
        stamped = {
            uid: msgspec.structs.replace(
                row, config_rev=change.config_rev, changed_at=change.at, log_id=self._log_id, stream_seq=stream_seq
            )
            for uid, row in changed.items()
        }
        self._rows |= stamped
        return list(stamped.values())

    def _entity_rows(self, entity: Entity) -> list[DirectoryRow]:
        """A key brings its provider configs, which budgets can name and which have no entity of their own."""
        if not isinstance(entity, Key):
            return [_row(entity)]
        return [_row(entity)] + [
            DirectoryRow(
                uid=config.uid,
                kind="provider_config",
                id=self._rows[config.provider].id if config.provider in self._rows else config.provider,
                org_uid=entity.org,
                customer_uid=entity.customer,
                team_uid=entity.team,
                key_uid=entity.uid,
                provider_uid=config.provider,
            )
            for config in entity.providers
        ]


def _row(entity: Entity) -> DirectoryRow:
    match entity:
        case Org():
            return DirectoryRow(uid=entity.uid, kind="org", id=entity.id)
        case Customer():
            return DirectoryRow(uid=entity.uid, kind="customer", id=entity.id, org_uid=entity.org)
        case Team():
            return DirectoryRow(
                uid=entity.uid, kind="team", id=entity.id, org_uid=entity.org, customer_uid=entity.customer
            )
        case Key():
            return DirectoryRow(
                uid=entity.uid,
                kind="key",
                id=entity.id,
                owner=entity.owner,
                org_uid=entity.org,
                customer_uid=entity.customer,
                team_uid=entity.team,
            )
        case Provider():
            return DirectoryRow(uid=entity.uid, kind="provider", id=entity.name, org_uid=entity.org)
        case PriceOverride() | Grant():
            kind, provider = ("grant", "") if isinstance(entity, Grant) else ("price", entity.provider)
            return DirectoryRow(uid=entity.uid, kind=kind, id=entity.uid, org_uid=entity.org, provider_uid=provider)


def _field(name: str, kind: str = TEXT) -> Column[DirectoryRow]:
    return Column(name, kind, lambda row: getattr(row, name))


DIRECTORY: Table[DirectoryRow] = Table(
    "directory_v1",
    (
        _field("uid"),
        _field("kind", NAME),
        _field("id"),
        _field("owner"),
        _field("org_uid"),
        _field("customer_uid"),
        _field("team_uid"),
        _field("key_uid"),
        _field("provider_uid"),
        _field("deleted", "Bool"),
        _field("config_rev", "UInt64"),
        _field("changed_at", TIME),
        _field("log_id", NAME),
        _field("stream_seq", "UInt64"),
    ),
)
