"""`sluicegate conformance`: our own gateway keeps the checklist, and a gateway that is broken in some way is found out."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from services.cli.conformance import own
from services.cli.conformance.books import Books, Entry
from services.cli.conformance.checklist import CHECKS, ITEMS
from services.cli.conformance.provider import Upstream
from services.cli.conformance.results import Report
from services.cli.conformance.run import run
from services.cli.conformance.scene import Scene
from services.cli.conformance.wire import Answer
from services.cli.supervisor import ports
from tests.fixtures.broken_gateway import FAULTS, KEYS, served, small_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEEDS_CLIENT = "needs the real client (--claude)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A private Sluicegate with everything but the real client."""
    provider = Upstream()
    await provider.start()
    try:
        async with own.gateway(tmp_path_factory.mktemp("own"), provider) as (gateway, facts, books):
            yield Scene(gateway, facts, provider, books)
    finally:
        await provider.stop()


async def test_our_gateway_keeps_every_item_that_needs_no_client(scene: Scene) -> None:
    report = await run(scene)
    assert [verdict.item for verdict in report.items] == list(range(1, 36))
    for verdict in report.items:
        looked_at = [found for found in verdict.checks if found.evidence != NEEDS_CLIENT]
        wanted = "not offered" if verdict.item == 24 else "passed"
        assert {found.status for found in looked_at} <= {wanted}, looked_at
        assert looked_at or verdict.item == 35, verdict
    assert not report.failed
    assert not report.spotless, "what was not looked at is not passed"


class LyingBooks(Books):
    """Tells every entry with some columns changed."""

    def __init__(self, honest: Books, lie: dict[str, object], *, attempts: int | None = None) -> None:
        super().__init__(honest.api)
        self._honest, self._lie, self._most = honest, lie, attempts

    async def of(self, answer: Answer) -> Entry:
        return self._told(await self._honest.of(answer))

    async def of_session(self, session: str, count: int, operation: str = "messages") -> list[Entry]:
        return [self._told(entry) for entry in await self._honest.of_session(session, count, operation)]

    def _told(self, entry: Entry) -> Entry:
        attempts = [attempt | self._lie for attempt in entry.attempts]
        if self._most is not None:
            attempts = [{"cost_nano_usd": 1}] * self._most
        return msgspec.structs.replace(entry, decision=entry.decision | self._lie, attempts=attempts)


LIES: dict[str, tuple[int, dict[str, object], int | None]] = {
    "denials are in the ledger": (12, {}, 1),
    "a wrong price": (14, {"list_nano_usd": 1}, None),
    "usage that was reported is called an estimate": (14, {"estimated": True}, None),
    "no estimate where nothing was reported": (14, {"estimated": False}, None),
    "the model that was asked for is named": (15, {"response_model": "claude-opus-5-5"}, None),
    "broken streams are free": (16, {"cost_nano_usd": 0}, None),
    "broken streams are not in the ledger": (16, {}, 0),
    "counts are in the ledger": (17, {}, 1),
    "the provider's id is not kept": (18, {"upstream_request_id": ""}, None),
    "sessions are not known": (25, {"session_id": ""}, None),
    "all classes are one": (29, {"request_class": "main"}, None),
    "titles are the main line": (31, {"request_class": "main"}, None),
    "repeats are not known": (30, {"repeat": False}, None),
}


@pytest.mark.parametrize("lie", LIES)
async def test_books_that_are_wrong_are_found_out(scene: Scene, lie: str) -> None:
    item, changed, attempts = LIES[lie]
    lying = Scene(scene.gateway, scene.facts, scene.provider, LyingBooks(scene.books, changed, attempts=attempts))
    [verdict] = (await run(lying, only=[item])).items
    assert verdict.result == "failed", verdict


async def test_a_prompt_in_a_log_is_found_out(scene: Scene, tmp_path: Path) -> None:
    """Kept by the provider's side here: whoever writes down what passes."""
    log = tmp_path / "gateway.log"
    log.touch()
    scene.provider.requests.clear()
    leaking = Scene(scene.gateway, msgspec.structs.replace(scene.facts, logs=(tmp_path,)), scene.provider, scene.books)

    async def leak() -> None:
        while True:
            log.write_bytes(b"".join(request.body for request in scene.provider.requests))
            await asyncio.sleep(0.05)

    leaking_on = asyncio.create_task(leak())
    try:
        [verdict] = (await run(leaking, only=[25])).items
    finally:
        leaking_on.cancel()
    assert verdict.result == "failed"
    assert "kept in gateway.log" in verdict.evidence


async def test_a_snippet_that_lacks_a_setting_is_found_out(scene: Scene) -> None:
    poor = msgspec.structs.replace(scene.facts, snippet="export ANTHROPIC_BASE_URL=https://gateway.test")
    [verdict] = (await run(Scene(scene.gateway, poor), only=[34])).items
    assert (verdict.result, "CLAUDE_CODE_GATEWAY_HINT_HEADERS" in verdict.evidence) == ("failed", True)


async def look(fault: str, *items: int) -> Report:
    async with small_gateway(fault) as (gateway, facts, upstream):
        return await run(Scene(gateway, facts, upstream), only=items)


SEEN_FROM_OUTSIDE = sorted(set(FAULTS.values()))


async def test_a_sound_gateway_passes_what_can_be_seen_from_outside() -> None:
    """Else the faults below would prove nothing."""
    report = await look("", *SEEN_FROM_OUTSIDE)
    broken = [found for verdict in report.items for found in verdict.checks if found.status == "failed"]
    assert broken == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_gateway_that_is_broken_on_purpose_is_found_out(fault: str) -> None:
    [verdict] = (await look(fault, FAULTS[fault])).items
    assert verdict.result == "failed", verdict


async def command(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `sluicegate conformance`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", "conformance", *words, stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("fault", ["", "re-serialises the body"])
async def test_any_gateway_is_looked_at_with_one_command(tmp_path: Path, fault: str) -> None:
    """It says where to point the gateway's provider, waits until it is, and reports."""
    port, file = ports.any_free(), tmp_path / "report.md"
    async with served(f"http://127.0.0.1:{port}", fault) as gateway:
        words = ("--base-url", gateway.base_url, "--key", KEYS.main, "--upstream-port", str(port))
        code, out, err = await command(*words, "--only", "3,4,12", "--report", str(file), "--json")
    assert f"point your gateway's provider at http://127.0.0.1:{port}" in err
    found = {item["item"]: item["result"] for item in json.loads(out)["items"]}
    assert found == {3: "passed", 4: "failed" if fault else "passed", 12: "not run"}
    assert code == (1 if fault else 0)
    assert f"| 4 | MUST | {ITEMS[4].title} | {found[4]} |" in file.read_text()
    assert KEYS.main not in out + err + file.read_text()


async def test_without_our_provider_the_client_s_side_is_looked_at() -> None:
    async with small_gateway("unknown key without x-should-retry") as (gateway, _, upstream):
        code, out, _ = await command("--base-url", gateway.base_url, "--key", KEYS.main, "--no-upstream")
        assert upstream.requests == [], "nobody is made to pay for a look"
    assert code == 1
    assert "unknown key" not in out.lower() or "so it is sent 11 times" in out
    assert "needs our provider behind the gateway" in out


async def test_strictly_what_is_not_looked_at_is_not_passed() -> None:
    async with small_gateway() as (gateway, _, _):
        words = ("--base-url", gateway.base_url, "--key", KEYS.main, "--no-upstream", "--only", "11,28")
        assert (await command(*words))[0] == 0
        assert (await command(*words, "--strict"))[0] == 1


async def test_a_gateway_must_be_named() -> None:
    code, _, err = await command("--only", "3")
    assert (code, "--self" in err) == (2, True)


async def test_every_item_has_a_check() -> None:
    assert {each.item for each in CHECKS} == set(ITEMS) == set(range(1, 36))
    assert [ITEMS[number].level for number in (25, 26)] == ["MUST", "SHOULD"]
