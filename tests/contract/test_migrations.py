"""The DDL, its copy in schemas/, the columns the sink writes and the columns users were promised agree."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.analytics.core.directory import DIRECTORY
from services.analytics.core.guard import TABLE_FUNCTIONS
from services.analytics.core.requests import REQUESTS
from services.analytics.core.usage import USAGE
from services.analytics.schemas import FOLDER, documents
from services.analytics.settings import Settings
from services.analytics.stores.database import Database, open_database
from services.analytics.stores.migrations import MigrationChanged, migrate, migrations, render, statements
from tests.fixtures.waiting import until

PROMISED = """
event_id rid request_id attempt ts org customer team key owner project tags session_id agent_id parent_agent_id prompt_id
request_class client_version operation client_format upstream_format route provider credential region request_model
canonical_model wire_model response_model upstream_request_id trace_id input_tokens cache_write_5m_tokens
cache_write_1h_tokens cache_read_tokens output_tokens thinking_tokens web_search_requests lines list_nano_usd
cost_nano_usd charge_nano_usd billing_class price_version estimated kind corrects status error_type outcome stop_reason
stream ttft_ms duration_ms body_digest admitted_at sent_at closed_at stream_seq
org_uid customer_uid team_uid key_uid project_uid provider_uid
"""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """The embedded engine, migrated."""
    async with open_database(Settings(data_dir=str(tmp_path / "clickhouse"))) as opened:
        await migrate(opened)
        yield opened


async def columns(database: Database, table: str) -> dict[str, str]:
    """Name to type, on one line."""
    rows = await database.rows(f"DESCRIBE TABLE sluicegate.{table}")
    return {str(row[0]): re.sub(r"\n *", "", re.sub(r",\n *", ", ", str(row[1]))) for row in rows}


def test_the_folder_of_schemas_is_written_from_the_migrations() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.sql")} == documents()


def test_migrations_are_numbered_without_gaps() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))


def test_a_cluster_makes_every_statement_replicated_and_on_cluster() -> None:
    settings = Settings(cluster="main", engine="ReplicatedMergeTree", database="gate")
    for one in migrations():
        for statement in statements(render(one.text, settings)):
            assert "ON CLUSTER 'main'" in statement
            assert " gate." in statement
            assert not re.search(r"\{\w+", statement)
            if engine := re.search(r"ENGINE = (\w+)", statement):
                assert engine[1].startswith("Replicated")


async def test_the_sink_writes_every_column_of_its_tables(database: Database) -> None:
    for table in (USAGE, REQUESTS, DIRECTORY):
        assert {column.name: column.type for column in table.columns} == await columns(database, table.name)


async def test_the_view_usage_has_every_column_that_was_promised(database: Database) -> None:
    found = await columns(database, "usage")
    assert [name for name in PROMISED.split() if name not in found] == []
    assert found["tags"] == "Map(String, String)"
    assert found["lines"].startswith("Array(Tuple(")
    for name in ("list_nano_usd", "cost_nano_usd", "charge_nano_usd"):
        assert found[name] == "Int64"
    for name in ("ts", "admitted_at", "sent_at", "closed_at"):
        assert "DateTime64(6, 'UTC')" in found[name]


async def test_the_view_requests_names_whom_a_request_belongs_to(database: Database) -> None:
    found = await columns(database, "requests")
    assert {"request_id", "ts", "org", "customer", "team", "key", "owner", "verdict", "reason", "status"} <= set(found)


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await database.insert(DIRECTORY, [], "nothing")
    assert await migrate(database) == len(migrations())
    rows = await database.rows("SELECT version, name FROM sluicegate.schema_migrations ORDER BY version")
    assert [tuple(row) for row in rows] == [(migration.version, migration.name) for migration in migrations()]


async def test_a_migration_whose_text_changed_after_it_was_applied_stops_the_start(database: Database) -> None:
    await database.command("ALTER TABLE sluicegate.schema_migrations UPDATE checksum = 'x' WHERE version = 1")

    async def changed() -> bool:
        rows = await database.rows("SELECT checksum FROM sluicegate.schema_migrations WHERE version = 1")
        return rows[0][0] == "x"

    await until(changed)
    with pytest.raises(MigrationChanged):
        await migrate(database)


async def test_only_known_names_are_both_a_function_and_a_table_function(database: Database) -> None:
    """The guard allows functions by name; one that gains a table function which reads elsewhere would slip in."""
    rows = await database.rows(
        "SELECT lower(name) FROM system.table_functions WHERE lower(name) IN (SELECT lower(name) FROM system.functions)"
    )
    assert {str(row[0]) for row in rows} - TABLE_FUNCTIONS == {"file", "format", "fuzzquery"}
