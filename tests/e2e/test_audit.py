"""Audit on a real broker: in this process, and killed at any moment in one of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from services.audit.app import build_app
from services.audit.core.chain import Broken, Verified
from services.audit.settings import Settings
from services.audit.verify import verify_stream
from shared.bus import Bus, BusSettings
from shared.clock import now
from shared.contracts.attribution import Principal
from shared.contracts.audit import AUDIT_APPEND, AuditEntry, AuditPage
from shared.contracts.config import CONFIG_CHANGED, ConfigChanged, Customer
from shared.contracts.edge import REQUEST_COMPLETED, RequestCompleted
from shared.contracts.ledger import LEDGER_COMMITTED, Commit, Held
from shared.contracts.message import Decoder, encode
from shared.contracts.streams import AUDIT, Position
from shared.settings import environ_of
from tests.fixtures.waiting import until


@asynccontextmanager
async def auditing(settings: BusSettings) -> AsyncIterator[web.Application]:
    runner = web.AppRunner(build_app(Settings(bus=settings, flush_interval_ms=20)))
    await runner.setup()
    yield runner.app
    await runner.cleanup()


def held(rid: str) -> Held:
    return Held(
        rid=rid,
        request_id=rid,
        attempt=0,
        edge="e",
        epoch=1,
        config_rev=1,
        principal=Principal(org="O", key="K"),
        charges=(),
        provider="P",
        model="m",
        nano_usd=5,
        input_nano_usd=1,
        input_tokens=1,
        output_tokens=1,
        stream=True,
        at_cap="cut",
        admitted_at=now(),
    )


async def admit(bus: Bus, *rids: str) -> None:
    events = tuple(held(rid) for rid in rids)
    commit = Commit(shard="0", owner_epoch=1, at=now(), digest=b"", priced=Position(), events=events)
    await bus.append(LEDGER_COMMITTED.format(shard="0"), encode(commit))


async def refuse(bus: Bus, request_id: str) -> None:
    done = RequestCompleted(
        request_id=request_id, edge="e", epoch=1, spool_seq=1, principal=Principal(key="K"), verdict="refused"
    )
    await bus.append(REQUEST_COMPLETED, encode(done))


async def recorded(bus: Bus) -> list[AuditEntry]:
    """Every entry of chain 0."""
    end, found = (await bus.end(AUDIT)).seq, list[AuditEntry]()
    if not end:
        return []
    async for messages in bus.follow(AUDIT):
        for stored in messages:
            found += Decoder(AuditPage).decode(stored.data).entries
        if messages[-1].seq >= end:
            return found
    raise AssertionError


async def test_what_is_decided_and_changed_is_in_the_chain_and_the_chain_is_whole(
    bus: Bus, bus_settings: BusSettings
) -> None:
    customer = Customer(uid="C", org="O", id="acme")
    await bus.append(CONFIG_CHANGED, encode(ConfigChanged(config_rev=1, at=1, actor="admin", puts=(customer,))))
    async with auditing(bus_settings):
        await admit(bus, "r1", "r2")
        await refuse(bus, "q3")
        await until(lambda: _has(bus, 4))
    async with auditing(bus_settings):
        await admit(bus, "r4")
        await until(lambda: _has(bus, 5))
    told = await recorded(bus)
    assert sorted(e.action for e in told) == ["admitted", "admitted", "admitted", "created", "refused"]
    checked = await verify_stream(bus)
    assert isinstance(checked, Verified)
    assert checked.entries == 5


async def _has(bus: Bus, count: int) -> bool:
    return len(await recorded(bus)) >= count


async def test_a_page_written_by_another_hand_is_found(bus: Bus, bus_settings: BusSettings) -> None:
    async with auditing(bus_settings):
        await admit(bus, "r1")
        await until(lambda: _has(bus, 1))
    page = AuditPage(chain_id="0", seq=2, prev=bytes(32), at=1, read={}, entries=())
    await bus.append(AUDIT_APPEND.format(chain="0"), encode(page))
    checked = await verify_stream(bus)
    assert isinstance(checked, Broken)
    assert checked.at == 2


async def test_a_second_audit_of_the_same_chain_ends_instead_of_forking_it(bus: Bus, bus_settings: BusSettings) -> None:
    async with auditing(bus_settings), auditing(bus_settings):
        for number in range(5):
            await admit(bus, f"r{number}")
            await until(partial(_has, bus, number + 1))
    assert isinstance(await verify_stream(bus), Verified)
    assert len(await recorded(bus)) == 5


async def test_killed_again_and_again_it_leaves_each_admission_exactly_once(
    bus: Bus, bus_settings: BusSettings
) -> None:
    settings = Settings(bus=bus_settings, flush_interval_ms=5)
    environ = os.environ | environ_of(settings, "AUDIT")
    wanted: list[str] = []
    for attempt in range(6):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.audit", env=environ, stderr=asyncio.subprocess.DEVNULL
        )
        before = len(await recorded(bus))
        for number in range(120):
            rids = [f"{attempt}-{number}-{n}" for n in range(3)]
            await admit(bus, *rids)
            wanted += rids
        await until(partial(_has, bus, before + 1), seconds=20)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with auditing(bus_settings):
        await until(lambda: _has(bus, len(wanted)), seconds=20)
    assert [e.details["rid"] for e in await recorded(bus)] == wanted
    checked = await verify_stream(bus)
    assert isinstance(checked, Verified)
    assert checked.entries == len(wanted)
