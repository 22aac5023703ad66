"""Numbered SQL, applied in order at every start; what is already there is left alone.

Parameters: `{database}`, `{on_cluster}`, and `{engine:KindMergeTree}`, which becomes the replicated or shared engine of that
kind where the settings ask for it. Every statement can be repeated, so a start that was cut short is simply made again.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files

import msgspec
import structlog

from services.analytics.settings import Settings
from services.analytics.stores.database import Database

log = structlog.get_logger()

_NAME = re.compile(r"^(\d{4})_\w+\.sql$")
_PARAMETER = re.compile(r"\{(database|on_cluster|engine):?(\w*)\}")


class Migration(msgspec.Struct, frozen=True):
    """text: with its parameters not yet filled in."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class MigrationChanged(RuntimeError):
    """A migration that was applied has another text now: write a new one instead."""


def migrations() -> list[Migration]:
    """All there are, by number."""
    found = [
        Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in files("services.analytics.migrations").iterdir()
        if (match := _NAME.match(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def render(text: str, settings: Settings) -> str:
    """Fill in the parameters."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "database":
            return settings.database
        if match[1] == "on_cluster":
            return f"ON CLUSTER '{settings.cluster}'" if settings.cluster else ""
        return settings.engine.removesuffix("MergeTree") + match[2]

    return re.sub(r" +\n", "\n", _PARAMETER.sub(value, text))


def statements(sql: str) -> Iterator[str]:
    """They end with a semicolon at the end of a line."""
    for part in re.split(r";\s*$", sql, flags=re.MULTILINE):
        if part.strip():
            yield part.strip()


async def migrate(database: Database) -> int:
    """Apply what is missing; returns the version reached. Raises MigrationChanged."""
    settings = database.settings
    await database.command(render("CREATE DATABASE IF NOT EXISTS {database} {on_cluster}", settings).strip())
    await database.command(render(_JOURNAL, settings))
    rows = await database.rows(
        f"SELECT version, checksum FROM {settings.database}.schema_migrations"  # noqa: S608  # a name of ours
    )
    applied = {int(str(version)): checksum for version, checksum in rows}
    version = 0
    for migration in migrations():
        version = migration.version
        if version not in applied:
            for statement in statements(render(migration.text, settings)):
                await database.command(statement)
            await database.command(
                f"INSERT INTO {settings.database}.schema_migrations (version, name, checksum) "  # noqa: S608  # ours
                f"VALUES ({version}, '{migration.name}', '{migration.checksum}')"
            )
            log.info("analytics.migrated", migration=migration.name)
        elif applied[version] != migration.checksum:
            raise MigrationChanged(migration.name)
    return version


_JOURNAL = """
CREATE TABLE IF NOT EXISTS {database}.schema_migrations {on_cluster}
(
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""
