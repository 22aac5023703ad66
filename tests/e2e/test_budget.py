"""The owner of the ledger on a real broker: durable before it answers, fenced, recovered, heard at every edge."""

import asyncio
from pathlib import Path

import pytest

from services.budget.app import OWNER
from services.budget.core.state import State
from services.budget.handlers import owner
from services.budget.stores import Ledger, kept_decisions
from shared.bus import Bus
from shared.clock import now
from shared.contracts.budget import (
    BALANCES,
    CHANGED,
    CUT,
    EXTEND,
    TRUEUP,
    WITHDRAW,
    Balances,
    BalancesAsked,
    Changed,
    Cut,
    Decision,
    Denied,
    Done,
    Extend,
    Granted,
    TrueUp,
    Verdict,
    Withdraw,
)
from shared.contracts.edge import EDGE_DECISION, EDGE_STATUS, DecisionAck, EdgeStatus
from shared.contracts.ledger import Entry, Held
from shared.contracts.message import Decoder, bundle, encode
from shared.contracts.pricing import USAGE_PRICED
from shared.contracts.streams import DECISIONS, EDGES, LEDGER, PRICED
from shared.errors import Overtaken, Unavailable
from shared.service import FATAL, READY
from tests.fixtures.broker import Broker
from tests.fixtures.budget import (
    PRINCIPAL,
    USD,
    Asker,
    ask,
    govern,
    organisation,
    owner_app,
    publish_priced,
    rule,
    usage,
)
from tests.fixtures.governed import governed, installation, records, settings_of
from tests.fixtures.waiting import until

__all__ = ["governed"]  # a fixture

KEY = "key:key:total"
MILLI = USD // 1_000
_balances = Decoder(Balances)
_decision = Decoder(Decision)
_verdict = Decoder(Verdict)


async def test_a_grant_is_in_the_ledger_before_it_is_answered(governed: Bus) -> None:
    async with owner_app(settings_of(governed)) as app:
        assert app[READY]()
        granted = await Asker(governed).reserve(ask())
        assert isinstance(granted, Granted)
        assert granted.owner_epoch == 1
        held = [event for commit in await records(governed) for event in commit.events if isinstance(event, Held)]
        assert [(event.rid, event.nano_usd, event.charges) for event in held] == [
            ("r1", granted.held_nano_usd, granted.charges)
        ]


async def test_a_priced_record_closes_the_hold_and_moves_the_position(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed)):
        await asker.reserve(ask())
        assert (await asker.balance(KEY)).held_nano_usd == 11 * MILLI
        seq = await publish_priced(governed, usage())
        await publish_priced(governed, usage())
        balance = await until(lambda: settled(asker))
        assert (balance.spent_nano_usd, balance.held_nano_usd) == (5 * MILLI, 0)
        last = (await records(governed))[-1]
        assert last.priced.seq in (seq, seq + 1)  # the duplicate may have come with it
        assert last.priced.log_id == (await governed.end(PRICED)).log_id


async def test_a_bundle_is_booked_whole_however_many_records_of_the_ledger_it_takes(governed: Bus) -> None:
    asker, rids = Asker(governed), [f"r{n}" for n in range(12)]
    async with owner_app(settings_of(governed, group_bytes=2_000)):
        for rid in rids:
            await asker.reserve(ask(rid))
        before = len(await records(governed))
        seq = await governed.append(USAGE_PRICED.format(shard="0"), bundle([encode(usage(rid)) for rid in rids]))
        balance = await until(lambda: settled(asker))
        assert (balance.spent_nano_usd, balance.held_nano_usd) == (12 * 5 * MILLI, 0)
    closing = (await records(governed))[before:]
    booked = [sum(isinstance(event, Entry) for event in commit.events) for commit in closing]
    assert sum(booked) == 12
    assert len([count for count in booked if count]) > 2
    # who takes over in between reads it again from its beginning
    last = max(at for at, count in enumerate(booked) if count)
    assert {commit.priced.seq for commit, count in zip(closing[:last], booked, strict=False) if count} == {seq - 1}
    assert closing[last].priced.seq == seq


async def test_who_asks_alone_waits_for_nobody_however_fast(governed: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_PACE_SECONDS", 60.0)
    asker = Asker(governed)
    async with owner_app(settings_of(governed)), asyncio.timeout(30):
        for number in range(40):
            assert isinstance(await asker.reserve(ask(f"r{number}")), Granted)


async def test_in_a_crowd_those_who_come_one_after_the_other_share_a_record(
    governed: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "_PACE_SECONDS", 60.0)
    asker = Asker(governed)
    async with owner_app(settings_of(governed)), asyncio.timeout(30):
        await asyncio.gather(*(asker.reserve(ask(f"first{number}")) for number in range(3)))
        waiting = []
        for number in range(owner._ENOUGH):  # the last one makes it enough
            waiting.append(asyncio.create_task(asker.reserve(ask(f"r{number}"))))
            await governed.end(LEDGER)  # a way to the broker and back, so that each is a message of its own
        await asyncio.gather(*waiting)
        last = (await records(governed))[-1]
        assert [event.rid for event in last.events if isinstance(event, Held)] == [
            f"r{n}" for n in range(owner._ENOUGH)
        ]


async def settled(asker: Asker):  # type: ignore[no-untyped-def]  # polled
    balance = await asker.balance(KEY)
    return balance if not balance.held_nano_usd else None


async def test_fifty_parallel_requests_share_records_and_never_pass_the_cap(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed)):
        answers = await asyncio.gather(*(asker.reserve(ask(f"r{n}", max_tokens=49_900)) for n in range(50)))
        assert sum(isinstance(answer, Granted) for answer in answers) == 10
        assert (await asker.balance(KEY)).held_nano_usd == 5 * USD
        assert len(await records(governed)) < 40


async def test_the_other_commands_are_answered_once_they_are_durable(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed)):
        await asker.reserve(ask("r1", text_bytes=100_000))
        extended = _verdict.decode(await asker.once(Extend(rid="r1", n=1, output_tokens=10), EXTEND)).answer
        assert isinstance(extended, Granted)
        await governed.publish(TRUEUP.format(shard="0"), encode(TrueUp(rid="r1", input_tokens=1_000, nano_usd=MILLI)))
        await until(lambda: held_is(asker, 11 * MILLI + 100_000))
        cut = Cut(rid="r1", budget_id=KEY, principal=PRINCIPAL, session="s")
        assert Decoder(Done).decode(await asker.once(cut, CUT)).owner_epoch == 1
        again = await asker.reserve(ask("r2", session="s"))
        assert isinstance(again, Denied)
        assert again.reason == "spent"
        await asker.once(Withdraw(rid="r1", edge="e1", epoch=1), WITHDRAW)
        assert (await asker.balance(KEY)).held_nano_usd == 0
        late = await asker.reserve(ask("r1"))
        assert isinstance(late, Denied)
        assert late.reason == "too_late"


async def held_is(asker: Asker, amount: int) -> bool:
    return (await asker.balance(KEY)).held_nano_usd == amount


async def test_balances_are_paged_and_name_untouched_budgets(governed: Bus) -> None:
    async with owner_app(settings_of(governed)):
        pages = [
            _balances.decode(await Asker(governed).once(BalancesAsked(org="org", offset=n, limit=1), BALANCES))
            for n in range(2)
        ]
        assert [(page.items[0].budget_id, page.items[0].spent_nano_usd, page.total) for page in pages] == [
            ("team:team:total", 0, 2),
            (KEY, 0, 2),
        ]
        nobody = _balances.decode(await Asker(governed).once(BalancesAsked(org="other"), BALANCES))
        assert nobody.items == ()


async def test_a_new_owner_knows_everything_that_was_answered(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed)) as app:
        first = await asker.reserve(ask("r1"))
        await asker.reserve(ask("r2"))
        await publish_priced(governed, usage("r2"))
        await until(lambda: "r2" in app[OWNER].state.closings)
        before = app[OWNER].state
    await publish_priced(governed, usage("r1"))  # while nobody is there
    async with owner_app(settings_of(governed)) as app:
        assert app[OWNER].state.owner_epoch == 2
        assert app[OWNER].state.counters.keys() == before.counters.keys()
        again = await asker.reserve(ask("r1"))
        balance = await until(lambda: settled(asker))
        assert balance.spent_nano_usd == 10 * MILLI
        assert isinstance(first, Granted)
        assert isinstance(again, Granted | Denied)
        entries = [e for commit in await records(governed) for e in commit.events if isinstance(e, Entry)]
        assert [entry.event_id for entry in entries] == ["r2:0", "r1:0"]


async def test_replaying_the_ledger_gives_the_live_state(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed)) as app:
        await asyncio.gather(*(asker.reserve(ask(f"r{n}")) for n in range(20)))
        for n in range(0, 20, 2):
            await publish_priced(governed, usage(f"r{n}", nano_usd=USD))
        await until(lambda: len(app[OWNER].state.closings) == 10)
        await until(lambda: app[OWNER].state.decisions)
        replayed = State()
        await Ledger(governed, "0").replay(replayed)
        assert replayed == app[OWNER].state
        assert replayed != State()


async def test_a_second_owner_fences_the_first_which_ends(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed)) as first:
        await asker.reserve(ask("r1"))
        async with owner_app(settings_of(governed)) as second:
            granted = await asker.reserve(ask("r2"))
            assert isinstance(granted, Granted)
            assert granted.owner_epoch == 2
            await until(first[FATAL].done)
            assert isinstance(first[FATAL].exception(), Overtaken)
            assert not second[FATAL].done()
            assert set(second[OWNER].state.holds) == {"r1", "r2"}


async def test_a_revision_of_config_it_has_not_seen_is_waited_for(governed: Bus) -> None:
    asker = Asker(governed)
    async with owner_app(settings_of(governed, config_wait_seconds=10.0)):
        waiting = asyncio.create_task(asker.once(ask("r1", config_rev=2), "budget.{shard}.reserve", timeout=10))
        granted = await asker.reserve(ask("r2", config_rev=1))
        assert isinstance(granted, Granted)
        assert not waiting.done()
        await govern(governed, organisation(key=[rule("key", 0, "total")]), rev=2)
        denied = _verdict.decode(await waiting).answer
        assert isinstance(denied, Denied)
        assert denied.limit_nano_usd == 0


async def test_a_revision_that_never_comes_is_met_with_silence(governed: Bus) -> None:
    async with owner_app(settings_of(governed, config_wait_seconds=0.1)) as app:
        with pytest.raises(Unavailable):
            await Asker(governed).once(ask(config_rev=9), "budget.{shard}.reserve", timeout=0.5)
        assert app[OWNER].state.holds == {}


class Edge:
    """A fake edge: applies decisions, refuses the first few to be told again."""

    def __init__(self, bus: Bus, name: str = "e1", deaf: int = 0) -> None:
        self.bus, self.name, self.deaf = bus, name, deaf
        self.decisions: list[Decision] = []

    async def start(self) -> None:
        await self.bus.subscribe(EDGE_DECISION.format(edge=self.name), self.on_decision)
        await (await self.bus.bucket(EDGES)).put(self.name, b"here")

    async def on_decision(self, data: bytes) -> bytes | None:
        decision = _decision.decode(data)
        self.decisions.append(decision)
        if self.deaf:
            self.deaf -= 1
            return None
        return encode(DecisionAck(edge=self.name, version=decision.version))

    async def report(self, *live: str, epoch: int = 1) -> None:
        status = EdgeStatus(edge=self.name, epoch=epoch, at=now(), live=live)
        await self.bus.publish(EDGE_STATUS.format(edge=self.name), encode(status))


async def test_a_spent_budget_is_blocked_at_every_edge_until_its_limit_is_raised(governed: Bus) -> None:
    deaf, other = Edge(governed, "deaf", deaf=2), Edge(governed, "other")
    changes: list[Changed] = []

    async def on_change(data: bytes) -> None:
        changes.append(Decoder(Changed).decode(data))

    await deaf.start()
    await other.start()
    await governed.subscribe(CHANGED.format(shard="0"), on_change)
    async with owner_app(settings_of(governed, ack_seconds=0.1)):
        await publish_priced(governed, usage(nano_usd=5 * USD))
        await until(lambda: other.decisions and len(deaf.decisions) == 3)
        block = other.decisions[0]
        assert (block.scope, block.state, block.version) == ("key:key", "block", 1)
        assert block.denied
        assert (block.denied.budget_id, block.denied.spent_nano_usd) == (KEY, 5 * USD)
        kept = await until(lambda: kept_decisions(governed))
        assert kept["key:key"] == block
        assert {change.threshold_ppm for change in changes} >= {950_000, 1_000_000}
        await govern(governed, organisation(team=[rule("team", 20, "total")], key=[rule("key", 50, "total")]), rev=2)
        await until(lambda: len(other.decisions) == 2)
        assert (other.decisions[1].state, other.decisions[1].version) == ("unblock", 2)
        await until(lambda: kept_is(governed, "unblock"))
        assert isinstance(await Asker(governed).reserve(ask("r2")), Granted)


async def kept_is(bus: Bus, state: str) -> bool:
    return (await kept_decisions(bus))["key:key"].state == state


async def test_an_edge_that_comes_later_and_one_that_starts_anew_hear_the_blocks(governed: Bus) -> None:
    edge = Edge(governed)
    async with owner_app(settings_of(governed)) as app:
        await publish_priced(governed, usage(nano_usd=5 * USD))
        await until(lambda: app[OWNER].state.decisions)
        await edge.start()
        for epoch in (1, 2):
            await edge.report(epoch=epoch)
            await until(lambda n=epoch: len(edge.decisions) == n)  # type: ignore[misc]  # the default binds the loop's value


async def test_a_new_owner_mends_what_edges_are_told(governed: Bus) -> None:
    async with owner_app(settings_of(governed)) as app:
        await publish_priced(governed, usage(nano_usd=5 * USD))
        await until(lambda: app[OWNER].state.decisions)
        await until(lambda: kept_decisions(governed))
    bucket = await governed.bucket(DECISIONS)
    await bucket.delete("key.key")  # as if the owner had died before it wrote
    async with owner_app(settings_of(governed)):
        await until(lambda: kept_decisions(governed))
        assert await kept_is(governed, "block")


async def test_a_hold_that_its_edge_no_longer_lists_is_booked_and_corrected_by_a_late_close(governed: Bus) -> None:
    edge, asker = Edge(governed), Asker(governed)
    async with owner_app(settings_of(governed, absent_seconds=1.5)) as app:
        await asker.reserve(ask("gone"))
        await asker.reserve(ask("live"))

        async def expired() -> bool:
            await edge.report("live")
            return "gone" in app[OWNER].state.closings

        await until(expired)
        assert set(app[OWNER].state.holds) == {"live"}
        assert (await asker.balance(KEY)).spent_nano_usd == 11 * MILLI
        await publish_priced(governed, usage("gone", nano_usd=2 * MILLI))
        await until(lambda: app[OWNER].state.closings["gone"].kind == "settled")
        assert (await asker.balance(KEY)).spent_nano_usd == 2 * MILLI


async def test_what_was_asked_while_the_broker_restarts_is_answered_and_held_once(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    async with installation(broker) as bus, owner_app(settings_of(bus)) as app:
        asker = Asker(bus)
        before = await asker.reserve(ask("before"))
        assert isinstance(before, Granted)
        asking = [asyncio.create_task(asker.reserve(ask(f"r{n}"), seconds=30)) for n in range(20)]
        await asyncio.sleep(0)
        broker.stop()
        await until(lambda: not app[READY]())
        broker.start()
        answers = await asyncio.gather(*asking)
        assert all(isinstance(answer, Granted) for answer in answers)
        assert (await asker.balance(KEY)).held_nano_usd == 21 * 11 * MILLI
        held = [e.rid for commit in await records(bus) for e in commit.events if isinstance(e, Held)]
        assert sorted(held) == sorted({*held})
        assert len(held) == 21
        assert not app[FATAL].done()
