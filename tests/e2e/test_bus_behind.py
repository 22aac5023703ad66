"""How far a reader is behind its log, told from the log's end on a real broker."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from shared.bus import Bus, behind
from shared.bus.behind import tell_behind
from shared.contracts.pricing import USAGE_PRICED
from shared.contracts.streams import PRICED, USAGE
from shared.service import end
from tests.fixtures.waiting import until

HERE = {"service_name": "test", "shard": ""}


class Reader:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.position = 0

    def __call__(self) -> int:
        return self.position


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "LOOK_SECONDS", 0.05)


@pytest.fixture
async def reader(bus: Bus) -> AsyncIterator[Reader]:
    """Of all of USAGE."""
    found = Reader()
    task = asyncio.create_task(tell_behind(bus, "test", USAGE, found))
    yield found
    await end(task)


def told(what: str, **labels: Any) -> float | None:
    return REGISTRY.get_sample_value(f"sluicegate_log_behind_{what}", HERE | {"log": USAGE} | labels)


async def test_a_reader_that_stands_still_is_told_of_until_it_has_caught_up(bus: Bus, reader: Reader) -> None:
    await until(lambda: told("records") == 0)
    for number in range(3):
        await bus.append("usage.recorded.0", b"usage", msg_id=str(number))
    await until(lambda: told("records") == 3 and (told("seconds") or 0) > 0.2)
    reader.position = 2
    await until(lambda: told("records") == 1)
    assert (told("seconds") or 0) > 0
    reader.position = 3
    await until(lambda: told("records") == 0 and told("seconds") == 0)


async def test_a_reader_of_one_shard_is_not_behind_what_is_written_in_another(bus: Bus) -> None:
    subjects = {shard: USAGE_PRICED.format(shard=shard) for shard in "01"}
    for shard in "0111":
        await bus.append(subjects[shard], b"priced")
    tasks = [
        asyncio.create_task(tell_behind(bus, "test", PRICED, lambda: 1, subject=subject, shard=shard))
        for shard, subject in subjects.items()
    ]
    await until(lambda: told("records", log=PRICED, shard="1") == 3)
    assert told("records", log=PRICED, shard="0") == 0
    await end(*tasks)
    assert (
        told("records", log=PRICED, shard="1") == 0
    )  # another process reads on: a past owner's figure would stay for ever
