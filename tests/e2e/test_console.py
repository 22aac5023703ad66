"""The console's writes: the organisation, on a real broker."""

import asyncio
import hashlib
import json
from pathlib import Path

import msgspec

from shared.bus import Bus, BusSettings, open_bus, provision
from shared.contracts.config import CONFIG_CHANGED, ConfigChanged
from shared.contracts.message import encode
from shared.contracts.streams import CONFIG
from tests.fixtures.broker import Broker
from tests.fixtures.console import DOCUMENT, Console, budget, config_of, console, running
from tests.fixtures.waiting import until

__all__ = ["budget", "console"]  # fixtures


async def test_a_document_applied_is_what_every_follower_of_config_sees(console: Console, bus: Bus) -> None:
    applied = await console.apply(DOCUMENT)
    assert [secret["key"] for secret in applied["secrets"]] == ["acme/platform/dev-omar"]
    assert applied["secrets"][0]["secret"].startswith("vk-")
    directory = await config_of(bus)
    assert directory.config_rev == applied["config_rev"] == 1
    asha = directory.key_of_secret(hashlib.sha256(b"vk-fixed-secret-of-asha").digest())
    omar = directory.key_of_secret(hashlib.sha256(applied["secrets"][0]["secret"].encode()).digest())
    assert asha is not None
    assert omar is not None
    assert (asha[0].id, omar[0].id) == ("dev-asha", "dev-omar")
    again = await console.apply(DOCUMENT)
    assert (again["config_rev"], again["changes"], again["secrets"]) == (1, [], [])


async def test_a_dry_run_tells_the_difference_and_changes_nothing(console: Console, bus: Bus) -> None:
    told = await console.apply(DOCUMENT, "?dry_run=true")
    assert told["dry_run"] is True
    assert {change["path"] for change in told["changes"]} >= {"acme", "acme/platform", "acme/platform/dev-asha"}
    assert told["secrets"] == []
    assert (await bus.end(CONFIG)).seq == 0


async def test_what_get_returns_can_be_applied_again_and_changes_nothing(console: Console) -> None:
    await console.apply(DOCUMENT)
    answer = await console.raw("GET", "/api/v1/organisation?format=yaml")
    text = await answer.text()
    assert "vk-" not in text
    assert (await console.apply(text))["changes"] == []


async def test_a_misspelt_budget_is_an_error_that_names_the_field(console: Console) -> None:
    document = DOCUMENT.replace("limit_usd: 100", "limit_us: 100")
    answer = await console.raw("POST", "/api/v1/organisation", document, Content_Type="application/yaml")
    assert answer.status == 400
    error = (await answer.json())["error"]
    assert error["code"] == "unknown_field"
    assert error["field"] == "customers[0].budgets[0].limit_us"


async def test_entities_are_made_changed_listed_and_deleted(console: Console) -> None:
    await console.apply(DOCUMENT)
    made = await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=201)
    assert (made["path"], made["managed_by"], made["revision"]) == ("acme/data", "console", 1)
    changed = await console.call("PATCH", "/api/v1/teams/data", {"contact": "data@acme.example"}, If_Match='"1"')
    assert (changed["contact"], changed["revision"]) == ("data@acme.example", 2)
    await console.call("PATCH", "/api/v1/teams/data", {"contact": ""}, If_Match='"1"', status=412)
    await console.call("PATCH", "/api/v1/teams/data", {"contct": ""}, status=400)
    await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=409)
    page = await console.call("GET", "/api/v1/teams?limit=1")
    rest = await console.call("GET", f"/api/v1/teams?limit=1&cursor={page['next_cursor']}")
    assert [item["id"] for item in page["items"] + rest["items"]] == ["data", "platform"]
    assert rest["next_cursor"] == ""
    await console.call("DELETE", "/api/v1/teams/data")
    await console.call("GET", "/api/v1/teams/data", status=404)
    await console.call("DELETE", "/api/v1/customers/acme", status=409)


async def test_file_apply_leaves_what_the_console_manages(console: Console) -> None:
    await console.apply(DOCUMENT)
    await console.call("POST", "/api/v1/keys", {"id": "bot", "team": "platform"}, status=201)
    assert (await console.apply(DOCUMENT))["changes"] == []
    pruned = await console.apply(DOCUMENT, "?prune=true")
    assert [(change["action"], change["path"]) for change in pruned["changes"]] == [("delete", "acme/platform/bot")]


async def test_a_key_is_shown_its_secret_once_revoked_and_rotated(console: Console, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    made = await console.call("POST", "/api/v1/keys", {"id": "ci", "team": "acme/platform"}, status=201)
    secret = made["secret"]
    shown = await console.call("GET", "/api/v1/keys/ci")
    assert "secret" not in shown
    assert secret not in json.dumps(shown)
    assert shown["secrets"][0]["hint"] == f"{secret[:7]}…"
    rotated = await console.call("POST", "/api/v1/keys/ci/rotate", {"overlap_seconds": 60})
    assert rotated["secret"] != secret
    directory = await config_of(bus)
    for working in (secret, rotated["secret"]):
        found = directory.key_of_secret(hashlib.sha256(working.encode()).digest())
        assert found is not None
        assert found[0].uid == made["uid"]
    revoked = await console.call("POST", f"/api/v1/keys/{made['uid']}/revoke")
    assert (revoked["state"], revoked["revoked"]) == ("revoked", True)
    assert (await config_of(bus)).key(made["uid"]).revoked_at > 0
    await console.call("POST", "/api/v1/keys/ci/rotate", {}, status=409)


async def test_a_slug_that_two_keys_have_is_refused_naming_the_paths(console: Console) -> None:
    await console.apply(DOCUMENT)
    await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=201)
    await console.call("POST", "/api/v1/keys", {"id": "dev-asha", "team": "data"}, status=201)
    told = await console.call("POST", "/api/v1/keys/dev-asha/revoke", status=409)
    assert "acme/data/dev-asha" in told["error"]["message"]
    assert "acme/platform/dev-asha" in told["error"]["message"]
    await console.call("POST", "/api/v1/keys/acme%2Fdata%2Fdev-asha/revoke")


async def test_a_post_sent_twice_with_one_idempotency_key_is_done_once(console: Console) -> None:
    await console.apply(DOCUMENT)
    body = {"id": "ci", "team": "platform"}
    first, second = await asyncio.gather(
        *(console.call("POST", "/api/v1/keys", body, status=201, Idempotency_Key="k1") for _ in range(2))
    )
    assert first == second
    await console.call("POST", "/api/v1/keys", body | {"owner": "x"}, status=409, Idempotency_Key="k1")


async def test_writes_at_the_same_time_lose_nothing(console: Console, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    await asyncio.gather(
        *(console.call("POST", "/api/v1/keys", {"id": f"k{n}", "team": "platform"}, status=201) for n in range(20))
    )
    directory = await config_of(bus)
    assert directory.config_rev == 21
    assert sum(1 for entity in directory.entities.values() if type(entity).__name__ == "Key") == 22


async def test_another_writer_in_between_makes_the_console_decide_again(console: Console, bus: Bus) -> None:
    await console.apply(DOCUMENT)
    foreign = ConfigChanged(config_rev=2, at=1, actor="another console", more=True)
    await bus.append(CONFIG_CHANGED, encode(foreign))
    made = await console.call("POST", "/api/v1/teams", {"id": "data", "customer": "acme"}, status=201)
    directory = await config_of(bus)
    assert directory.config_rev == 3
    assert made["uid"] in directory.entities


async def test_two_consoles_write_at_the_same_time_and_lose_nothing(
    console: Console, bus: Bus, bus_settings: BusSettings
) -> None:
    await console.apply(DOCUMENT)
    async with running(bus_settings) as other:
        await asyncio.gather(
            *(
                writer.call("POST", "/api/v1/keys", {"id": f"{name}{n}", "team": "platform"}, status=201)
                for n in range(8)
                for name, writer in (("a", console), ("b", other))
            )
        )
        assert len((await other.call("GET", "/api/v1/keys"))["items"]) == 18
    directory = await config_of(bus)
    assert directory.config_rev == 17
    assert sum(1 for entity in directory.entities.values() if type(entity).__name__ == "Key") == 18


async def test_a_broker_that_is_away_is_told_and_waited_for(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    settings = msgspec.structs.replace(broker.settings(), request_timeout_seconds=0.3)
    async with open_bus(settings, "test") as bus:
        await provision(bus)
    async with running(settings) as console:
        await console.apply(DOCUMENT)
        broker.stop()
        answer = await console.raw("POST", "/api/v1/customers", {"id": "beta"})
        assert answer.status == 503
        assert len((await console.call("GET", "/api/v1/keys"))["items"]) == 2  # what is known can still be read
        broker.start()

        async def written() -> bool:
            return (await console.raw("POST", "/api/v1/customers", {"id": "beta"})).status in (201, 409)

        await until(written, seconds=20)
        assert [c["id"] for c in (await console.call("GET", "/api/v1/customers"))["items"]] == ["acme", "beta"]
    broker.stop()


async def test_an_empty_body_deletes_nothing(console: Console) -> None:
    await console.apply(DOCUMENT)
    for content_type in ("application/yaml", "application/octet-stream"):
        told = await console.call("POST", "/api/v1/organisation", b"", status=400, Content_Type=content_type)
        assert told["error"]["code"] == "empty"
    assert [key["id"] for key in (await console.call("GET", "/api/v1/keys"))["items"]] == ["dev-asha", "dev-omar"]
