"""The bus on a real broker."""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from shared.bus import Bus, Record, open_bus, provision
from shared.bus.packs import MOST_BYTES, MOST_QUESTIONS, answer_of
from shared.contracts.streams import EDGES, LEDGER
from shared.errors import Overtaken, Unavailable
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import until


async def test_a_message_id_stores_a_record_once(bus: Bus) -> None:
    first = await bus.append("ledger.0", b"x", msg_id="a")
    assert await bus.append("ledger.0", b"x", msg_id="a") == first
    assert (await bus.end(LEDGER)).seq == 1


async def test_an_expected_sequence_that_does_not_hold_stores_nothing(bus: Bus) -> None:
    await bus.append("ledger.0", b"x", expected_last_seq=0)
    with pytest.raises(Overtaken):
        await bus.append("ledger.0", b"y", expected_last_seq=0)
    assert (await bus.end(LEDGER)).seq == 1


async def test_a_stream_made_anew_has_another_log_id(bus: Bus) -> None:
    before = (await bus.end(LEDGER)).log_id
    await bus.client.jetstream().delete_stream(bus.names.stream(LEDGER))
    await provision(bus)
    assert before
    assert (await bus.end(LEDGER)).log_id not in ("", before)


async def test_provisioning_twice_changes_nothing(bus: Bus) -> None:
    before = await bus.end(LEDGER)
    await provision(bus)
    assert await bus.end(LEDGER) == before


async def test_a_request_nobody_answers_is_unavailable_at_once(bus: Bus) -> None:
    with pytest.raises(Unavailable):
        await bus.request("budget.0.reserve", b"", timeout=5)


async def test_a_handler_answers_requests_concurrently(bus: Bus) -> None:
    both = asyncio.Barrier(2)

    async def handler(data: bytes) -> bytes:
        await both.wait()
        return data.upper()

    await bus.subscribe("budget.0.reserve", handler)
    assert await asyncio.gather(*(bus.request("budget.0.reserve", b) for b in (b"a", b"b"))) == [b"A", b"B"]


async def test_many_questions_at_once_each_get_their_own_answer(bus: Bus) -> None:
    async def handler(data: bytes) -> bytes:
        return data * 2

    await bus.subscribe("budget.0.reserve", handler)
    asked = [str(number).encode() for number in range(1_000)]
    assert await asyncio.gather(*(bus.request("budget.0.reserve", each) for each in asked)) == [2 * a for a in asked]


async def test_a_late_answer_is_dropped_and_never_taken_for_another(bus: Bus) -> None:
    late, answered = asyncio.Event(), asyncio.Event()

    async def handler(data: bytes) -> bytes:
        if data == b"slow":
            await late.wait()
            asyncio.get_running_loop().call_soon(answered.set)
        return data

    await bus.subscribe("budget.0.reserve", handler)
    with pytest.raises(Unavailable):
        await bus.request("budget.0.reserve", b"slow", timeout=0.05)
    late.set()
    await answered.wait()
    assert await bus.request("budget.0.reserve", b"quick") == b"quick"
    assert not bus._replies._waiting


async def test_who_stops_waiting_leaves_nothing_behind(bus: Bus) -> None:
    async def handler(data: bytes) -> None:
        await asyncio.Event().wait()

    await bus.subscribe("budget.0.reserve", handler)
    asking = asyncio.create_task(bus.request("budget.0.reserve", b"", timeout=30))
    await until(lambda: len(bus._asking._waiting) == 1)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled() and not bus._asking._waiting
    for task in bus._answering._running:
        task.cancel()


async def test_a_handler_may_promise_its_answer(bus: Bus) -> None:
    promised: dict[bytes, asyncio.Future[bytes]] = {}

    def handler(data: bytes) -> "asyncio.Future[bytes]":
        if not data:
            raise ValueError("nothing asked")
        return promised.setdefault(data, asyncio.get_running_loop().create_future())

    await bus.subscribe("budget.0.reserve", handler)
    with pytest.raises(Unavailable):
        await bus.request("budget.0.reserve", b"", timeout=0.05)
    asking = asyncio.gather(*(bus.request("budget.0.reserve", each) for each in (b"a", b"b")))
    await until(lambda: len(promised) == 2)
    promised[b"b"].set_result(b"B")
    promised[b"a"].set_result(b"A")
    assert await asking == [b"A", b"B"]
    assert not bus._answering._running


async def test_a_handler_that_fails_harms_no_other(bus: Bus) -> None:
    async def handler(data: bytes) -> bytes:
        return data[int(data) :] + b"."

    await bus.subscribe("budget.0.reserve", handler)
    with pytest.raises(Unavailable):
        await bus.request("budget.0.reserve", b"no number", timeout=0.05)
    assert await bus.request("budget.0.reserve", b"1") == b"."


async def test_records_stored_together_keep_their_order_and_are_stored_once(bus: Bus) -> None:
    records = [Record("ledger.0", str(number).encode(), f"id{number}") for number in range(200)]
    assert await bus.append_all(records) == [True] * 200
    assert await bus.append_all(records[150:]) == [True] * 50
    assert (await bus.end(LEDGER)).seq == 200
    async for messages in bus.follow(LEDGER):
        assert [stored.data for stored in messages] == [each.data for each in records[: len(messages)]]
        break


async def test_records_that_no_stream_takes_are_not_stored(bus: Bus) -> None:
    records = [Record("nowhere", b"x", "a"), Record("ledger.0", b"x", "b")]
    assert await bus.append_all(records) == [False, True]
    with pytest.raises(Unavailable):
        await bus.append("nowhere", b"x")


async def test_a_question_asked_while_the_broker_is_away_is_answered_when_it_is_back(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()

    async def handler(data: bytes) -> bytes:
        return data.upper()

    try:
        async with open_bus(broker.settings("p"), "test") as bus:
            await provision(bus)
            await bus.subscribe("budget.0.reserve", handler)
            broker.stop()
            await until(lambda: not bus.connected)
            assert await bus.append_all([Record("ledger.0", b"x", "a")], timeout=0.05) == [False]
            asking = asyncio.create_task(bus.request("budget.0.reserve", b"a", timeout=15))
            broker.start()
            assert await asking == b"A"
            assert await bus.request("budget.0.reserve", b"b") == b"B"
            await until(partial(_stored, bus, "a"), 15)
            assert (await bus.end(LEDGER)).seq == 1
    finally:
        broker.stop()


async def _stored(bus: Bus, msg_id: str) -> bool:
    """Append as services do: again with the same id until it is acknowledged."""
    try:
        return bool(await bus.append("ledger.0", b"x", msg_id=msg_id, timeout=1))
    except Unavailable:
        return False


async def test_following_survives_a_killed_broker_without_gap_or_repeat(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    seen: list[int] = []
    try:
        async with open_bus(broker.settings("p"), "test") as bus:
            await provision(bus)

            async def read() -> None:
                async for messages in bus.follow(LEDGER, after=2, batch=3):
                    seen.extend(m.seq for m in messages)

            reader = asyncio.create_task(read())
            for _ in range(5):
                await bus.append("ledger.0", b"x")
            await until(lambda: seen == [3, 4, 5])
            broker.stop()
            broker.start()
            for n in range(5):
                await until(partial(_stored, bus, str(n)), 15)
            await until(lambda: seen == [*range(3, 11)], 15)
            reader.cancel()
    finally:
        broker.stop()


async def test_a_connection_closes_though_the_broker_is_gone(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    async with open_bus(broker.settings(), "test") as bus:
        broker.stop()
        await until(lambda: not bus.connected)
        await bus.client.publish("anything", b"that is left to tell")


async def test_the_broker_tells_whether_it_syncs_before_it_acknowledges(bus: Bus, tmp_path: Path) -> None:
    assert await bus.sync_always() is True
    lazy = Broker(tmp_path, sync='"2m"')
    lazy.start()
    try:
        async with open_bus(lazy.settings(), "test") as other:
            assert await other.sync_always() is False
    finally:
        lazy.stop()


async def test_all_that_a_bucket_holds_is_told_however_often_it_is_asked(bus: Bus) -> None:
    bucket = await bus.bucket(EDGES)
    for name in ("E1", "team.T", "gone"):
        await bucket.put(name, name.encode())
    await bucket.delete("gone")
    for _ in range(300):
        assert set(await asyncio.gather(*(_names(bus) for _ in range(4)))) == {("E1", "team.T")}


async def _names(bus: Bus) -> tuple[str, ...]:
    return tuple(sorted((await bus.values(EDGES)).keys()))


async def test_what_is_asked_in_one_turn_travels_as_one_message(bus: Bus) -> None:
    async def handler(data: bytes) -> bytes:
        return data * 2

    await bus.subscribe("budget.0.reserve", handler)
    messages = bus.client.stats["out_msgs"]
    asked = [b"%d" % n for n in range(100)]
    assert await asyncio.gather(*(bus.request("budget.0.reserve", each) for each in asked)) == [2 * a for a in asked]
    assert bus.client.stats["out_msgs"] - messages == 2, "a question and an answer, both sent by this connection"


async def test_questions_that_do_not_fit_in_one_message_travel_in_several(bus: Bus) -> None:
    async def handler(data: bytes) -> bytes:
        return data

    await bus.subscribe("budget.0.reserve", handler)
    asked = [bytes([n]) * (MOST_BYTES // 3) for n in range(10)]
    assert await asyncio.gather(*(bus.request("budget.0.reserve", each) for each in asked)) == asked
    many = [b"%d" % n for n in range(3 * MOST_QUESTIONS)]
    assert await asyncio.gather(*(bus.request("budget.0.reserve", each) for each in many)) == many


async def test_where_nobody_listens_everyone_who_asked_is_told_at_once(bus: Bus) -> None:
    asking = (bus.request("budget.0.reserve", b"", timeout=60) for _ in range(3))
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in found] == [Unavailable] * 3
    assert not bus._asking._waiting


async def test_a_question_or_an_answer_that_is_none_harms_nobody(bus: Bus) -> None:
    async def handler(data: bytes) -> bytes:
        return b"good"

    await bus.subscribe("budget.0.reserve", handler)
    await bus.client.publish(bus.names.subject("budget.0.reserve"), b"\xff\xff", bus.client.new_inbox())

    async def hostile(msg: Msg) -> None:
        for answer in (b"\xff", answer_of([(7, b"seventh of one")]), answer_of([(0, b"good")])):
            await bus.client.publish(msg.reply, answer)

    await bus.client.subscribe(bus.names.subject("budget.1.reserve"), cb=hostile)
    for subject in ("budget.0.reserve", "budget.1.reserve"):
        assert await bus.request(subject, b"") == b"good"
