"""An organisation is told over the API to live in another shard."""

from collections.abc import AsyncIterator

import pytest

from shared.bus import Bus
from shared.contracts.budget import BALANCES, Balances
from shared.contracts.message import encode
from tests.fixtures.console import DOCUMENT, Console, console

__all__ = ["console"]


@pytest.fixture
async def governed(console: Console, bus: Bus) -> AsyncIterator[Console]:
    """Shard 1 has an owner, shard 2 has none."""

    async def answer(data: bytes) -> bytes:
        return encode(Balances(items=(), total=0, config_rev=1, owner_epoch=1))

    await console.apply(DOCUMENT)
    await bus.subscribe(BALANCES.format(shard="1"), answer)
    await bus.client.flush()
    yield console


async def test_a_move_is_a_revision_that_changes_the_shard_and_nothing_else(governed: Console) -> None:
    (before,) = governed.app_directory().homes.values()
    done = await governed.call("PATCH", "/api/v1/orgs/default", {"shard": "1"})
    assert [(change["kind"], change["fields"]) for change in done["changes"]] == [("org", ["shard"])]
    (homes,) = governed.app_directory().homes.values()
    assert homes == (*before, (done["config_rev"], "1"))
    again = await governed.call("PATCH", "/api/v1/orgs/default", {"shard": "1"})
    assert (again["changes"], again["config_rev"]) == ([], done["config_rev"])


@pytest.mark.parametrize(
    ("org", "shard", "status", "code"),
    [
        ("default", "2", 409, "no_owner"),
        ("nobody", "1", 404, "not_found"),
        ("default", "a shard", 400, "invalid_request"),
    ],
)
async def test_a_move_that_cannot_be_made_is_refused(
    governed: Console, org: str, shard: str, status: int, code: str
) -> None:
    found = await governed.raw("PATCH", f"/api/v1/orgs/{org}", {"shard": shard})
    assert (found.status, (await found.json())["error"]["code"]) == (status, code)
    assert [len(homes) for homes in governed.app_directory().homes.values()] == [1]
