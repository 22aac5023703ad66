"""Grants on the admin API: written once, listed, ended; nobody else may."""

from shared.bus import Bus
from shared.contracts.config import Grant
from tests.fixtures.console import DOCUMENT, Console, MemoryBudget, budget, config_of, console

__all__ = ["budget", "console"]  # fixtures

PATH = "/api/v1/budgets/key:dev-asha:day/grants"


async def grants_in(bus: Bus) -> list[Grant]:
    return [entity for entity in (await config_of(bus)).entities.values() if isinstance(entity, Grant)]


async def test_a_grant_sent_twice_with_one_key_is_made_once(console: Console, budget: MemoryBudget, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    for _ in range(2):
        made = await console.call(
            "POST", PATH, {"amount_usd": "1.10", "note": "demo"}, status=201, Idempotency_Key="once"
        )
    (found,) = await grants_in(bus)
    assert (found.uid, found.nano_usd, found.actor) == (made["grant"]["uid"], 1_100_000_000, "admin")
    assert made["grant"] | {"granted_at": ""} == {
        "uid": found.uid,
        "budget_id": found.budget_id,
        "amount_nano_usd": 1_100_000_000,
        "granted_at": "",
        "expires_at": "",
        "ended": False,
        "note": "demo",
        "actor": "admin",
    }
    assert made["balance"]["id"] == found.budget_id
    assert (await console.call("GET", PATH))["items"] == [made["grant"]]


async def test_a_path_serves_for_the_uid_and_applying_a_file_leaves_grants_alone(
    console: Console, budget: MemoryBudget, bus: Bus
) -> None:
    await console.apply(DOCUMENT)
    path = "/api/v1/budgets/key:acme%2Fplatform%2Fdev-asha:day/grants"
    made = await console.call("POST", path, {"amount_usd": 1}, status=201)
    assert (await console.apply(DOCUMENT, "?prune=true"))["changes"] == []
    await console.call("DELETE", f"{path}/{made['grant']['uid']}")
    (found,) = await grants_in(bus)
    assert found.expires_at > found.granted_at


async def test_what_is_wrong_is_named_and_changes_nothing(console: Console, budget: MemoryBudget, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    for body, field in (
        ({"amount_usd": -1}, "amount_usd"),
        ({}, "amount_usd"),
        ({"amount_usd": 1, "expires": "2027-01-01"}, "expires"),
        ({"amount_usd": 1, "expires_at": "soon"}, "expires_at"),
    ):
        assert (await console.call("POST", PATH, body, status=400))["error"]["field"] == field
    await console.call("DELETE", f"{PATH}/nothing", status=404)
    await console.call("POST", "/api/v1/budgets/key:nobody:day/grants", {"amount_usd": 1}, status=404)
    assert await grants_in(bus) == []


async def test_only_an_administrator_may_grant(console: Console) -> None:
    await console.apply(DOCUMENT)
    for token in ("", "Bearer vk-fixed-secret-of-asha"):
        for method, path in (("POST", PATH), ("GET", PATH), ("DELETE", f"{PATH}/x")):
            assert (await console.raw(method, path, {"amount_usd": 1}, Authorization=token)).status == 401


async def test_a_dry_run_tells_that_another_time_zone_begins_a_new_count(console: Console) -> None:
    await console.apply(DOCUMENT)
    moved = DOCUMENT.replace("period: day", "period: day, timezone: Asia/Tokyo")
    (row,) = (await console.apply(moved, "?dry_run=true"))["changes"]
    assert row["warnings"] == ["the budget of a day counts anew from nothing: another timezone"]
