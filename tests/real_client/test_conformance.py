"""The checks that need the real client, against a small gateway: sound, all are kept; broken, they are found out.

Our own gateway is looked at by `sluicegate conformance --self --strict`, which tests/real_client/run starts after these tests.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.cli.conformance.claude import Claude, namespace
from services.cli.conformance.conversation import conversation
from services.cli.conformance.run import run
from services.cli.conformance.scene import Scene
from tests.fixtures.broken_gateway import small_gateway
from tests.real_client.claude import NEWEST, binary


@asynccontextmanager
async def scene(folder: Path, fault: str, version: str) -> AsyncIterator[Scene]:
    async with small_gateway(fault) as (gateway, facts, upstream), conversation(folder) as simulator:
        found = Scene(gateway, facts, upstream, None, simulator)
        claude = Claude(binary(version), gateway, await namespace())
        await claude.introduce()
        assert claude.version == version
        found.clients = (claude,)
        yield found


KEPT = (1, 2, 9, 11, 12, 17, 23, 27)


async def test_the_client_gets_along_with_any_sound_gateway(tmp_path: Path, version: str) -> None:
    async with scene(tmp_path, "", version) as sound:
        report = await run(sound, only=KEPT)
    assert [found for verdict in report.items for found in verdict.checks if found.status == "failed"] == []
    assert {verdict.item for verdict in report.items if any(found.client for found in verdict.checks)} == set(KEPT)


@pytest.mark.parametrize(
    ("fault", "item"),
    [
        ("budget as 403", 9),
        ("revoked key as 403", 11),
        ("denies with 404", 12),
        ("counts tokens for money", 17),
        ("takes subscriptions", 23),
        ("lists every model", 27),
    ],
)
async def test_the_client_shows_what_a_broken_gateway_does_to_it(tmp_path: Path, fault: str, item: int) -> None:
    async with scene(tmp_path, fault, NEWEST) as broken:
        [verdict] = (await run(broken, only=[item])).items
    with_client = [found for found in verdict.checks if found.client]
    assert "failed" in {found.status for found in with_client}, with_client
