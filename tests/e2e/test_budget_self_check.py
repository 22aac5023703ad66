"""The owner has its ledger checked by a process beside it."""

import asyncio

import msgspec
import prometheus_client
import pytest

from services.budget.handlers import auditor
from services.budget.handlers.auditor import Auditor
from shared.bus import Bus
from shared.clock import now
from shared.contracts.ledger import Entry
from shared.contracts.message import encode
from tests.e2e.test_budget_verify import BALANCES, ROWS, serve
from tests.fixtures.budget import owner_app
from tests.fixtures.governed import governed, records, settings_of
from tests.fixtures.waiting import until

__all__ = ["governed"]  # a fixture

RESULTS = "sluicegate_budget_self_checks_total"


def counted(result: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(RESULTS, {"result": result}) or 0


async def test_a_sound_ledger_is_said_to_be_sound(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        await serve(governed, "r1")
        found = await Auditor(settings_of(governed), now).check()
    assert {check.name: check.state for check in found}[BALANCES] == "ok"
    assert {check.state for check in found} == {"ok", "left out"}


async def test_what_is_wrong_is_counted_for_the_alarm(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        await serve(governed, "r1")
        closing = next(one for one in await records(governed) if any(isinstance(event, Entry) for event in one.events))
        await governed.append("ledger.0", encode(closing))
        before = counted("failed")
        found = await Auditor(settings_of(governed), now).check()
    assert any(check.state == "fail" for check in found)
    assert counted("failed") == before + 1
    assert prometheus_client.REGISTRY.get_sample_value("sluicegate_budget_self_check_failures") != 0


async def test_it_runs_by_itself_as_often_as_it_is_told(governed: Bus) -> None:
    before = counted("ok")
    settings = msgspec.structs.replace(settings_of(governed), self_check_seconds=0.1)
    async with owner_app(settings):
        await until(lambda: counted("ok") > before, 20)


async def test_a_check_that_cannot_be_made_is_said_and_harms_nobody(
    governed: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counted("unavailable")
    settings = settings_of(governed)
    away = msgspec.structs.replace(settings.bus, url="nats://127.0.0.1:9")
    assert await Auditor(msgspec.structs.replace(settings, bus=away), now).check() == []
    monkeypatch.setattr(auditor, "MOST_SECONDS", 0.01)
    assert await Auditor(settings, now).check() == []
    assert counted("unavailable") == before + 2


async def test_rows_that_cannot_be_asked_for_make_no_check_rather_than_a_false_one(governed: Bus) -> None:
    settings = msgspec.structs.replace(settings_of(governed), clickhouse_url="http://127.0.0.1:9/sluicegate")
    async with owner_app(settings):
        found = {check.name: check for check in await Auditor(settings, now).check()}
    assert found[ROWS].state == "left out"
    assert found[ROWS].said == "ClickHouse does not answer"


async def test_the_check_ends_with_the_owner(governed: Bus) -> None:
    settings = msgspec.structs.replace(settings_of(governed), self_check_seconds=0.01)
    async with owner_app(settings):
        await asyncio.sleep(0.3)  # in the middle of one
