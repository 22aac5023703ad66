"""`verify` on a real ledger: the broker's records, the owner's balances, the newest snapshot and rows."""

import pytest

from services.budget import verify
from services.budget.core.inspection import Check, sums_of
from services.budget.explain import story
from services.budget.verify import Rows, Verifier
from shared.bus import Bus
from shared.contracts.ledger import Entry
from shared.contracts.message import encode
from tests.fixtures.budget import Asker, ask, owner_app, publish_priced, usage
from tests.fixtures.governed import governed, records, settings_of
from tests.fixtures.waiting import until

__all__ = ["governed"]  # a fixture

SNAPSHOT = "the newest snapshot is what the ledger leads to"
BALANCES = "the owner's balances are what the ledger leads to"
ROWS = "each entry is one row of `usage`, with its amounts"


class MemoryTable:
    """The rows that analytics would have, but for those in `lost`."""

    def __init__(self, bus: Bus, *lost: str) -> None:
        self._bus, self._lost = bus, lost

    async def between(self, shard: str, log_id: str, after: int, to: int) -> Rows:
        return [
            (event.event_id, *sums_of(event))
            for seq, commit in enumerate(await records(self._bus), 1)
            for event in commit.events
            if after < seq <= to and isinstance(event, Entry) and event.event_id not in self._lost
        ]


async def serve(bus: Bus, *rids: str) -> None:
    """Granted and closed, by an owner that runs."""
    asker = Asker(bus)
    for rid in rids:
        await asker.reserve(ask(rid, max_tokens=10))
        await publish_priced(bus, usage(rid, nano_usd=1_000))

    async def spent() -> bool:
        return (await asker.balance("key:key:total")).spent_nano_usd >= 1_000 * len(rids)

    await until(spent)


async def checked(bus: Bus, *lost: str) -> dict[str, Check]:
    checks = await Verifier(bus, "0", MemoryTable(bus, *lost), lambda done, total: None).run()
    return {check.name: check for check in checks}


async def test_a_ledger_in_use_is_sound(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        await serve(governed, "r1")
    async with owner_app(settings_of(governed)):
        await serve(governed, "r2")
        found = await checked(governed)
    assert {check.state for check in found.values()} == {"ok"}, found
    assert [step.kind for step in await story(governed, "0", "r2")] == ["held", "entry"]
    assert await story(governed, "0", "nobody") == []


async def test_what_cannot_be_asked_is_left_out_and_said(governed: Bus) -> None:
    found = await checked(governed)
    assert found[SNAPSHOT].state == found[BALANCES].state == "left out"
    assert found[BALANCES].said == "the owner does not answer"


async def test_a_lost_row_is_found(governed: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ROWS_SECONDS", 0.0)
    async with owner_app(settings_of(governed)):
        await serve(governed, "r1", "r2")
        found = await checked(governed, "r2:0")
    assert [name for name, check in found.items() if check.state == "fail"] == [ROWS]
    assert found[ROWS].failures == ["r2:0 has no row"]


async def test_a_forged_record_and_the_figures_it_leads_to_are_found(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        await serve(governed, "r1")
        closing = next(one for one in await records(governed) if any(isinstance(event, Entry) for event in one.events))
        await governed.append("ledger.0", encode(closing))
        found = {check.name: check for check in await Verifier(governed, "0", None, lambda done, total: None).run()}
    assert found[ROWS].said == "no ClickHouse was named"
    wrong = {name for name, check in found.items() if check.state == "fail"}
    assert "each record carries the digest of the one before" in wrong
    assert "each attempt has one closing entry, corrections follow it in order" in wrong
    assert BALANCES in wrong
