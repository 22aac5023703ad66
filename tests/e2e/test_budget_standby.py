"""Several budget replicas: who stands by takes over, and who was deposed never grants."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.budget.stores import keep_decision, kept_decisions
from shared.bus import Bus
from shared.contracts.attribution import Principal
from shared.contracts.budget import RESERVE, Decision, Granted
from shared.contracts.config import BudgetRule, Customer, Entity, Key, Org, Provider, Team
from shared.contracts.ledger import EpochBegan, Held
from shared.contracts.message import encode
from shared.errors import Unavailable
from tests.fixtures.broker import Broker
from tests.fixtures.budget import (
    USD,
    ask,
    govern,
    organisation,
    publish_priced,
    publish_prices,
    rule,
    usage,
)
from tests.fixtures.governed import installation, records
from tests.fixtures.replica import Answers, Make, again, balances, granted, has_epoch, holder, replicas
from tests.fixtures.waiting import until

pytestmark = pytest.mark.alone

TAKEOVER_SECONDS = 3.0  # the lease is 1.2 s; two cores shared with everything else that runs


@pytest.fixture
async def make(bus: Bus, tmp_path: Path) -> AsyncIterator[Make]:
    """A key with 5 USD, and budget replicas of one's choice."""
    await publish_prices(bus)
    await govern(bus, organisation(key=[rule("key", 5, "total")]))
    async with replicas(bus, tmp_path) as made:
        yield made


async def test_a_killed_owner_is_followed_within_a_lease_and_nothing_is_lost(bus: Bus, make: Make) -> None:
    one, two = make("one"), make("two")
    await one.start()
    await two.start()
    assert await holder(bus) == "one"
    first, _ = await granted(bus, ask("r1"))
    await one.stop()
    second, took = await granted(bus, ask("r2"))
    assert took < TAKEOVER_SECONDS
    assert (first.owner_epoch, second.owner_epoch) == (1, 2)
    assert await holder(bus) == "two"
    (balance,) = (await balances(bus, "0")).items
    assert balance.held_nano_usd == first.held_nano_usd + second.held_nano_usd
    await one.start()  # and stands by, where it was the owner
    assert await holder(bus) == "two"
    await two.stop()
    third, took = await granted(bus, ask("r3"))
    assert third.owner_epoch == 3
    assert took < TAKEOVER_SECONDS


async def test_an_owner_that_ends_well_hands_over_at_once(bus: Bus, make: Make) -> None:
    one, two = await make("one", lease_seconds=30.0).start(), make("two", lease_seconds=30.0)
    two.spawn()
    await until(lambda: two.said("budget.recovered"), what="a standby")
    await granted(bus, ask("r1"))
    assert await one.stop(signal.SIGTERM) == 0
    answer, took = await granted(bus, ask("r2"))
    assert answer.owner_epoch == 2
    assert took < TAKEOVER_SECONDS, "nobody waited for the lease to run out"


@pytest.mark.parametrize("new", [0, 20])
async def test_an_owner_that_was_frozen_answers_nothing_when_it_wakes(bus: Bus, make: Make, new: int) -> None:
    """new: attempts nobody has heard of. Without them all it is asked could be answered from memory, without a record."""
    one, two = await make("one").start(), await make("two").start()
    await granted(bus, ask("known"))
    one.send(signal.SIGSTOP)
    answers = Answers(bus)
    asked = [ask("known"), *(ask(f"new{n}") for n in range(new)), ask("nobody", key="no such key")]
    for each in asked:  # both hear it: the frozen one in its socket, the other once it has taken over
        await answers.ask(each)
    await until(lambda: has_epoch(bus, 2), TAKEOVER_SECONDS, "a takeover")
    for each in asked:
        await answers.ask(each)
    await until(lambda: len({rid for rid, _ in answers.of_epoch(2)}) == len(asked), what="the new owner's answers")
    one.send(signal.SIGCONT)
    await until(lambda: one.said("budget.shard_lost"), what="the frozen owner to notice")
    await until(lambda: len(one.said("budget.recovered")) == 2, what="it to stand by")
    await bus.client.flush()
    assert answers.of_epoch(1) == []
    held = [event.rid for record in await records(bus) for event in record.events if isinstance(event, Held)]
    assert sorted(held) == sorted(["known", *(f"new{n}" for n in range(new))]), "each once"
    await two.stop()
    answer, took = await granted(bus, ask("again"))
    assert (answer.owner_epoch, took < TAKEOVER_SECONDS) == (3, True)


async def test_a_frozen_owner_cannot_lend_money_that_the_next_one_has_spent(bus: Bus, make: Make) -> None:
    one = await make("one").start()
    await make("two").start()
    await granted(bus, ask("before"))
    one.send(signal.SIGSTOP)
    answers = Answers(bus)
    for n in range(50):
        await answers.ask(ask(f"greedy{n}"))
    await granted(bus, ask("after"))
    await publish_priced(bus, usage("after", nano_usd=5 * USD))

    async def spent() -> bool:
        return (await balances(bus, "0")).items[0].spent_nano_usd == 5 * USD

    await until(spent)
    one.send(signal.SIGCONT)
    await until(lambda: one.said("budget.shard_lost"), what="the frozen owner to notice")
    grants = [rid for rid, answer in answers.found if isinstance(answer, Granted)]
    assert not [rid for rid, answer in answers.of_epoch(1)]
    epochs = [event for record in await records(bus) for event in record.events if isinstance(event, EpochBegan)]
    assert [epoch.owner_epoch for epoch in epochs] == [1, 2]
    assert (await balances(bus, "0")).items[0].held_nano_usd == (11_000_000 * (len(grants) + 1))


PRINCIPAL_B = Principal(org="org-b", customer="cus-b", team="team-b", key="key-b")
OTHER: list[Entity] = [
    Org(uid="org-b", id="other", shard="1"),
    Customer(uid="cus-b", org="org-b", id="b"),
    Team(uid="team-b", org="org-b", customer="cus-b", id="b"),
    Key(
        uid="key-b",
        org="org-b",
        customer="cus-b",
        team="team-b",
        id="b",
        budgets=(BudgetRule(id="key:key-b:total", limit_nano_usd=USD, period="total"),),
    ),
    Provider(uid="prov-b", org="org-b", name="anthropic", kind="anthropic", base_url="http://127.0.0.1"),
]


async def test_two_replicas_share_the_shards_and_one_can_have_both(bus: Bus, make: Make) -> None:
    await govern(bus, OTHER, rev=2)
    one, two = make("one", shards="0,1", home_shards="0"), make("two", shards="0,1", home_shards="1")
    one.spawn()
    two.spawn()
    await one.ready()
    await two.ready()
    assert [await holder(bus, shard) for shard in "01"] == ["one", "two"]
    ask_b = ask("b1", principal=PRINCIPAL_B, provider="prov-b", config_rev=2)
    await granted(bus, ask("a1"))
    await granted(bus, ask_b, shard="1")
    # each shard knows its own organisation alone, and is silent about the other's
    for shard, budget_id in (("0", "key:key:total"), ("1", "key:key-b:total")):
        assert [item.budget_id for item in (await balances(bus, shard)).items] == [budget_id]
    with pytest.raises(Unavailable):
        await bus.request(RESERVE.format(shard="0"), encode(again(ask_b, rid="b2")), timeout=0.3)
    await two.stop()
    _, took = await granted(bus, again(ask_b, rid="b3"), shard="1")
    assert took < TAKEOVER_SECONDS
    assert [await holder(bus, shard) for shard in "01"] == ["one", "one"]
    assert (await balances(bus, "1")).items[0].held_nano_usd == 2 * 11_000_000
    await one.stop()


async def test_a_decision_of_an_older_owner_never_replaces_a_newer_one(bus: Bus) -> None:
    """A frozen owner wakes with a decision still to be kept for the edges that come later."""
    newer = Decision(scope="key:key", state="unblock", version=7, owner_epoch=2)
    for decision in (newer, Decision(scope="key:key", state="block", version=6, owner_epoch=1)):
        await keep_decision(bus, decision)
    assert (await kept_decisions(bus))["key:key"] == newer


async def test_a_broker_that_restarts_makes_nobody_take_over(tmp_path: Path) -> None:
    """Neither hears the other while it is away: silence then says nothing about the owner."""
    broker = Broker(tmp_path / "nats")
    async with installation(broker) as bus, replicas(bus, tmp_path) as make:
        one = await make("one").start()
        two = await make("two").start()
        await granted(bus, ask("before"))
        broker.stop()
        await asyncio.sleep(2.0)  # longer than a lease
        broker.start()
        answer, _ = await granted(bus, ask("after"))
        assert answer.owner_epoch == 1
        await asyncio.sleep(2.0)
        assert (await granted(bus, ask("later")))[0].owner_epoch == 1
        assert not one.said("budget.shard_lost")
        assert not two.said("budget.shard_taken")
