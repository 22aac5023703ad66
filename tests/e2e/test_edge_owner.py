"""Talking with the owner, and being talked to, over a real broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import nats.js.errors
import pytest

from services.edge.core.lifecycle import Identity
from services.edge.stores import presence as presences
from services.edge.stores.catalogue import Catalogue
from services.edge.stores.owners import Owners
from services.edge.stores.presence import Presence
from shared.bus import Bus
from shared.bus.packs import Handler
from shared.contracts.attribution import Principal
from shared.contracts.budget import (
    BALANCES,
    CUT,
    RESERVE,
    WITHDRAW,
    Balances,
    BalancesAsked,
    Cut,
    Decision,
    Denied,
    Done,
    Granted,
    Queued,
    Reserve,
    Verdict,
    Withdraw,
)
from shared.contracts.config import ConfigChanged, Org
from shared.contracts.edge import EDGE_DECISION, EDGE_STATUS, EDGE_VERDICT, DecisionAck, EdgeStatus
from shared.contracts.message import Decoder, Message, encode
from shared.contracts.pricing import PRICES_BOOK, PriceBook, PriceBookPublished, RateCard, Tokens
from shared.contracts.streams import DECISIONS, EDGES
from shared.directory import Directory
from shared.errors import Unavailable
from tests.fixtures.attempts import DENIED, GRANTED, reserve
from tests.fixtures.waiting import until

pytestmark = pytest.mark.alone

ME = Identity(edge="E1", epoch=1)
PATH = Principal(org="O", team="T", key="K")

_reserve = Decoder(Reserve)
_withdraw = Decoder(Withdraw)
_status = Decoder(EdgeStatus)
_ack = Decoder(DecisionAck)

Answer = Granted | Denied | Queued


class PlayedOwner:
    """Answers as scripted: one entry for each question, the last one for all that follow; None says nothing."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.script: list[Answer | None] = [GRANTED]
        self.asked: list[Reserve] = []
        self.withdrawn: list[str] = []

    async def open(self) -> None:
        await self._bus.subscribe(RESERVE.format(shard="0"), self._on_reserve)
        await self._bus.subscribe(WITHDRAW.format(shard="0"), self._on_withdraw)

    async def _on_reserve(self, data: bytes) -> bytes | None:
        ask = _reserve.decode(data)
        self.asked.append(ask)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return encode(Verdict(rid=ask.rid, answer=answer)) if answer else None

    async def _on_withdraw(self, data: bytes) -> bytes:
        rid = _withdraw.decode(data).rid
        self.withdrawn.append(rid)
        return encode(Done(rid=rid, owner_epoch=1))


@pytest.fixture
async def played(bus: Bus) -> PlayedOwner:
    made = PlayedOwner(bus)
    await made.open()
    return made


Maker = Callable[[float], Awaitable[Owners]]


@pytest.fixture
async def owner(bus: Bus) -> AsyncIterator[Maker]:
    """Makes owners with the given queue_seconds."""
    made: list[Owners] = []

    async def make(queue_seconds: float) -> Owners:
        one = Owners(bus, ME, Directory(), lambda rid: "01ORG", queue_seconds=queue_seconds)
        await one.open()
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()


async def test_a_grant_and_a_denial_come_back_after_one_question(owner: Maker, played: PlayedOwner) -> None:
    one = await owner(5)
    assert await one.reserve(reserve()) == GRANTED
    played.script = [DENIED]
    assert await one.reserve(reserve()) == DENIED
    assert [ask.waited_ms for ask in played.asked] == [0, 0]


async def test_silence_is_answered_by_asking_again_with_the_same_rid(owner: Maker, played: PlayedOwner) -> None:
    played.script = [None, None, None, None, GRANTED]
    assert await (await owner(5)).reserve(reserve("R")) == GRANTED
    assert {ask.rid for ask in played.asked} == {"R"}
    waited = [ask.waited_ms for ask in played.asked]
    assert waited == sorted(waited)
    assert waited[-1] >= 190  # the loop may wake a moment early
    assert played.withdrawn == []


async def test_a_new_owner_within_the_queue_time_is_found(owner: Maker, bus: Bus) -> None:
    asking = asyncio.create_task((await owner(10)).reserve(reserve()))
    done, _ = await asyncio.wait({asking}, timeout=0.3)
    assert not done, "nobody is there, and the question stands all the while"
    await PlayedOwner(bus).open()
    assert await asyncio.wait_for(asking, 3) == GRANTED


async def test_without_an_owner_a_hard_budget_refuses_in_the_end_and_withdraws(owner: Maker, bus: Bus) -> None:
    one = await owner(0.3)
    with pytest.raises(Unavailable, match="budget"):
        await one.reserve(reserve("R"))
    late = PlayedOwner(bus)
    await late.open()
    await until(lambda: late.withdrawn == ["R"])


async def test_without_an_owner_a_soft_budget_is_told_at_once_and_withdraws_nothing(
    owner: Maker, played: PlayedOwner
) -> None:
    played.script = [None]
    one = await owner(20)
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable):
            await one.reserve(reserve(), patient=False)
    assert len(played.asked) == 3
    assert played.withdrawn == []


async def test_a_client_that_leaves_withdraws(owner: Maker, played: PlayedOwner) -> None:
    played.script = [None]
    asking = asyncio.create_task((await owner(20)).reserve(reserve("R")))
    await until(lambda: played.asked)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: played.withdrawn == ["R"])


async def test_an_answer_of_a_deposed_owner_is_ignored(owner: Maker, played: PlayedOwner) -> None:
    one = await owner(5)
    played.script = [msgspec.structs.replace(GRANTED, owner_epoch=7)]
    await one.reserve(reserve())
    old, new = msgspec.structs.replace(GRANTED, owner_epoch=6), msgspec.structs.replace(DENIED, owner_epoch=8)
    played.script = [old, new]
    assert await one.reserve(reserve()) == new


async def test_a_queued_attempt_gets_its_verdict_when_its_turn_comes(
    owner: Maker, played: PlayedOwner, bus: Bus
) -> None:
    played.script = [Queued(ahead=3, owner_epoch=1)]
    asking = asyncio.create_task((await owner(20)).reserve(reserve("R")))
    await until(lambda: played.asked)
    verdict = encode(Verdict(rid="R", answer=GRANTED))

    async def told() -> bool:
        await bus.publish(EDGE_VERDICT.format(edge="E1"), verdict)
        return asking.done()

    await until(told)
    assert (await asking, len(played.asked)) == (GRANTED, 1)


async def test_a_queued_attempt_asks_for_the_last_word_when_its_time_is_over(owner: Maker, played: PlayedOwner) -> None:
    busy = msgspec.structs.replace(DENIED, reason="busy")
    played.script = [Queued(ahead=1, owner_epoch=1), busy]
    assert await (await owner(0.2)).reserve(reserve()) == busy
    assert played.asked[-1].waited_ms >= 190  # the loop may wake a moment early


async def test_a_cut_is_told_before_the_stream_ends_or_given_up_soon(owner: Maker, bus: Bus) -> None:
    one, cut = await owner(5), Cut(rid="R", budget_id="b", principal=PATH)
    async with asyncio.timeout(2):
        assert not await one.cut(cut)

    async def done(data: bytes) -> bytes:
        return encode(Done(rid="R", owner_epoch=1))

    await bus.subscribe(CUT.format(shard="0"), done)
    assert await one.cut(cut)


async def test_balances_are_asked_for(owner: Maker, bus: Bus) -> None:
    one, empty = await owner(5), Balances(items=(), total=0, config_rev=1, owner_epoch=1)
    with pytest.raises(Unavailable, match="budget"):
        await one.balances(BalancesAsked())

    async def answer(data: bytes) -> bytes:
        return encode(empty)

    await bus.subscribe(BALANCES.format(shard="0"), answer)
    assert await one.balances(BalancesAsked()) == empty


async def at_once() -> None:
    """Nothing is unknown."""


def presence(
    bus: Bus,
    live: tuple[str, ...] = (),
    interval_seconds: float = 10.0,
    caught_up: Callable[[], Awaitable[None]] | None = None,
) -> Presence:
    return Presence(
        bus,
        ME,
        live=lambda: live,
        config_rev=lambda: 9,
        spool_records=lambda: 2,
        delivered_epoch=lambda: 0,
        caught_up=caught_up or at_once,
        interval_seconds=interval_seconds,
    )


async def for_ever() -> None:
    """Never all is known."""
    await asyncio.Event().wait()


async def test_who_does_not_know_the_organisation_as_it_is_now_is_not_current(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revoked key would go on."""
    monkeypatch.setattr(presences, "CATCH_UP_SECONDS", 0.05)
    knows, behind = presence(bus), presence(bus, caught_up=for_ever)
    await knows.open()
    await behind.open()
    assert knows.current
    assert not behind.current


async def test_who_often_changes_looks_at_decisions_all_the_same(bus: Bus) -> None:
    one = presence(bus, interval_seconds=0.1)
    await one.open()
    beating = asyncio.create_task(one.run())
    try:
        for _ in range(40):
            one.changed()
            await asyncio.sleep(0.02)
        assert one.current
    finally:
        beating.cancel()


def decision(version: int, state: str = "block") -> Decision:
    return Decision(scope="team:T", state=state, version=version, owner_epoch=1, denied=DENIED)


async def told(bus: Bus, message: Message) -> DecisionAck:
    return _ack.decode(await bus.request(EDGE_DECISION.format(edge="E1"), encode(message)))


async def test_a_decision_is_applied_before_it_is_acknowledged(bus: Bus) -> None:
    one = presence(bus)
    await one.open()
    assert one.blocked(PATH) is None
    assert await told(bus, decision(4)) == DecisionAck(edge="E1", version=4)
    assert one.blocked(PATH) == DENIED
    await told(bus, decision(5, "unblock"))
    await told(bus, decision(4))
    assert one.blocked(PATH) is None


async def test_decisions_made_before_are_known_at_the_start(bus: Bus) -> None:
    await (await bus.bucket(DECISIONS)).put("team.T", encode(decision(4)))
    one = presence(bus)
    await one.open()
    assert one.blocked(PATH) == DENIED


async def test_a_decision_that_was_missed_is_read_later(bus: Bus) -> None:
    one = presence(bus, interval_seconds=0.05)
    await one.open()
    beating = asyncio.create_task(one.run())
    await (await bus.bucket(DECISIONS)).put("team.T", encode(decision(4)))
    await until(lambda: one.blocked(PATH) == DENIED)
    beating.cancel()


async def test_the_heartbeat_tells_what_is_in_flight_and_the_end_signs_off(bus: Bus) -> None:
    heard: list[EdgeStatus] = []

    async def hear(data: bytes) -> None:
        heard.append(_status.decode(data))

    await bus.subscribe(EDGE_STATUS.format(edge="E1"), hear)
    one = presence(bus, live=("a", "b"), interval_seconds=0.05)
    await one.open()
    registered = _status.decode((await (await bus.bucket(EDGES)).get("E1")).value or b"")
    assert (registered.edge, registered.epoch, registered.live) == ("E1", 1, ("a", "b"))
    beating = asyncio.create_task(one.run())
    await until(lambda: len(heard) >= 2)
    one.drain()
    await until(lambda: heard[-1].draining)
    assert (heard[-1].live, heard[-1].config_rev, heard[-1].spool_records) == (("a", "b"), 9, 2)
    beating.cancel()
    await one.close()
    with pytest.raises(nats.js.errors.KeyNotFoundError):
        await (await bus.bucket(EDGES)).get("E1")


async def test_the_catalogue_follows_the_newest_price_book(bus: Bus) -> None:
    one = Catalogue(bus)
    following = asyncio.create_task(one.run())
    for version, model in (("1", "old"), ("2", "new")):
        card = RateCard(id=model, provider="anthropic", models=(model,), rates=Tokens(input=1))
        book = PriceBook(version=version, published_at="2026-01-01", source="t", cards=(card,))
        message = PriceBookPublished(version=version, book=msgspec.json.encode(book))
        await bus.append(PRICES_BOOK, encode(message))
    await until(lambda: [card.id for card in one.cards] == ["new"])
    following.cancel()


async def test_each_organisation_is_asked_for_at_its_own_shard(bus: Bus) -> None:
    directory = Directory()
    puts = (Org(uid="far", id="far", shard="1"), Org(uid="near", id="near"))
    directory.apply(ConfigChanged(config_rev=1, at=1, actor="test", puts=puts))
    heard: list[tuple[str, str]] = []

    def listener(shard: str) -> Handler:
        async def hear(data: bytes) -> bytes:
            ask = Decoder(Reserve).decode(data)
            heard.append((shard, ask.rid))
            # epochs are each shard's own: a young owner of one must be believed beside an old one of the other
            answer = msgspec.structs.replace(GRANTED, owner_epoch=9 if shard == "0" else 1)
            return encode(Verdict(rid=ask.rid, answer=answer))

        return hear

    for shard in ("0", "1"):
        await bus.subscribe(RESERVE.format(shard=shard), listener(shard))
    owners = Owners(bus, ME, directory, lambda rid: rid[2:], queue_seconds=5)
    for org in ("near", "far"):
        ask = msgspec.structs.replace(reserve(), rid=f"r-{org}", principal=Principal(org=org))
        assert isinstance(await owners.reserve(ask), Granted)
    assert heard == [("0", "r-near"), ("1", "r-far")]
    assert (directory.shard("far"), directory.shard("gone"), directory.shards()) == ("1", "0", ("0", "1"))
    await owners.close()


async def test_what_is_asked_while_an_organisation_moves_is_answered_where_it_lives_then(bus: Bus) -> None:
    directory = Directory()
    directory.apply(ConfigChanged(config_rev=1, at=1, actor="test", puts=(Org(uid="org", id="org"),)))
    silent = asyncio.Event()

    async def left(data: bytes) -> bytes:
        silent.set()
        raise Unavailable("the shard it lives in")

    async def here(data: bytes) -> bytes:
        # an owner of a young shard: its epoch is no older than the other's, only another one
        rid = Decoder(Reserve).decode(data).rid
        return encode(Verdict(rid=rid, answer=msgspec.structs.replace(GRANTED, owner_epoch=1), shard="1"))

    await bus.subscribe(RESERVE.format(shard="0"), left)
    await bus.subscribe(RESERVE.format(shard="1"), here)
    owners = Owners(bus, ME, directory, lambda rid: "org", queue_seconds=5)
    await owners.open()
    owners.of("0")._epoch = 9
    ask = msgspec.structs.replace(reserve(), principal=Principal(org="org"))
    asking = asyncio.create_task(owners.reserve(ask))
    await asyncio.wait_for(silent.wait(), 3)
    stale = encode(Verdict(rid=ask.rid, answer=msgspec.structs.replace(GRANTED, owner_epoch=9), shard="7"))
    await bus.publish(EDGE_VERDICT.format(edge=ME.edge), stale)
    directory.apply(ConfigChanged(config_rev=2, at=2, actor="test", puts=(Org(uid="org", id="org", shard="1"),)))
    assert await asyncio.wait_for(asking, 3) == msgspec.structs.replace(GRANTED, owner_epoch=1)
    await owners.close()
