"""Streams that outgrow their hold: extended, refused, cut or let finish. The whole edge; provider and owner played."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from services.edge.app import OWNER, SPOOL
from services.edge.core import extension
from services.edge.handlers.relay import Relay
from services.edge.settings import Settings
from services.edge.stores import spool_folder
from services.edge.stores.upstream import UpstreamConnection
from shared.contracts.attribution import Charge
from shared.contracts.budget import Extend, Granted, Queued, Reserve, Standing, Verdict
from shared.contracts.edge import EDGE_VERDICT, UsageRecorded
from shared.contracts.message import encode
from tests.fixtures.edge import Edge, Start, edge, start_edge
from tests.fixtures.exchanges import event
from tests.fixtures.owner import denied, granted
from tests.fixtures.talk import ask, well_formed
from tests.fixtures.upstream import Script, Turn, upstream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient, post

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

BODY = {"model": "claude-sonnet-5-5", "max_tokens": 9_000, "messages": [{"role": "user", "content": "hi"}]}
STREAMED = json.dumps(BODY | {"stream": True}).encode()
DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * 300})  # 100 tokens
MINE = Charge(budget_id="key:key:month", period_id="2026-11")


def message_start(input_tokens: int = 10) -> bytes:
    counts = {"input_tokens": input_tokens, "output_tokens": 1}
    started = event("message_start", message={"model": "claude-sonnet-5-5", "usage": counts})
    return started + event("content_block_start", index=0, content_block={"type": "text", "text": ""})


def message_end(output_tokens: int) -> bytes:
    counts = {"input_tokens": 10, "output_tokens": output_tokens}
    return (
        event("content_block_stop", index=0)
        + event("message_delta", delta={"stop_reason": "end_turn"}, usage=counts)
        + event("message_stop")
    )


def writes(deltas: int, pace: float = 0.002) -> Script:
    """So many deltas of 100 tokens, one by one, or all at once without a pace."""

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        if not pace:
            await turn.write(
                b"".join(framed(message_start(), DELTA * deltas, message_end(100 * deltas))) + b"0\r\n\r\n"
            )
            return
        await turn.chunk(message_start())
        for _ in range(deltas):
            await turn.chunk(DELTA)
            await asyncio.sleep(pace)
        await turn.chunk(message_end(100 * deltas))
        await turn.write(b"0\r\n\r\n")

    return script


def framed(*parts: bytes) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]


def holding(output_tokens: int, **more: Any) -> Callable[[Reserve], Granted]:
    grant = msgspec.structs.replace(granted(output_tokens), charges=(MINE,), **more)
    return lambda ask: grant


def gives(tokens: int | None = None) -> Callable[[Extend], Granted]:
    """As much as is asked for, or so much."""

    def answer(ask: Extend) -> Granted:
        return msgspec.structs.replace(granted(ask.output_tokens if tokens is None else tokens), held_nano_usd=7_000)

    return answer


async def record(edge: Edge) -> UsageRecorded:
    [usage] = await edge.usage()
    return usage


def output_of(usage: UsageRecorded) -> int:
    return sum(line.quantity for line in usage.lines if line.meter == "output")


async def test_a_stream_that_outgrows_its_hold_is_extended_and_completes(edge: Edge) -> None:
    edge.owner.decide, edge.owner.more = holding(3_000), gives()
    edge.upstream.script = writes(80)
    answer = await ask(edge.port, STREAMED)
    assert answer.body.endswith(event("message_stop"))
    assert answer.body.count(DELTA) == 80
    assert [ask.n for ask in edge.owner.extends] == list(range(1, len(edge.owner.extends) + 1))
    assert sum(ask.output_tokens for ask in edge.owner.extends) <= 6_000, "never beyond max_tokens"
    usage = await record(edge)
    assert (usage.outcome, output_of(usage), usage.held_nano_usd) == ("ok", 8_000, 7_000)
    assert edge.owner.cuts == []


async def test_a_burst_waits_for_its_extension_at_the_end_of_its_hold(edge: Edge) -> None:
    edge.owner.decide, edge.owner.more = holding(700), gives()
    edge.upstream.script = writes(2_000, pace=0)
    body = json.dumps(BODY | {"stream": True, "max_tokens": 250_000}).encode()
    assert (await ask(edge.port, body)).body.count(DELTA) == 2_000
    assert edge.owner.extends
    assert edge.owner.cuts == []


async def test_a_refused_stream_is_cut_before_its_hold_and_the_owner_hears_of_it_first(edge: Edge) -> None:
    edge.owner.decide = holding(3_000, limited_by="key:key:month")
    edge.owner.more = lambda ask: msgspec.structs.replace(denied(), budget_id="team:team:day")
    edge.upstream.script = writes(80)
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await client.until_body(b"billing_error")
        assert [cut.budget_id for cut in edge.owner.cuts] == ["team:team:day"], "told before the client hears of it"
        answer = await client.answer()
    assert well_formed(answer.body)
    assert b"daily budget of team 'platform'" in answer.body
    assert len(edge.owner.extends) == 1
    usage = await record(edge)
    assert (usage.outcome, usage.estimated) == ("cut", True)
    assert 2_000 < output_of(usage) <= 3_000


@pytest.mark.parametrize(
    ("grants", "refuses"), [("cut", "finish"), ("finish", "finish")], ids=["the refusing budget's rule", "the path's"]
)
async def test_a_stream_that_may_finish_does(edge: Edge, grants: str, refuses: str) -> None:
    edge.owner.decide = holding(3_000, at_cap=grants)
    edge.owner.more = lambda ask: msgspec.structs.replace(denied(), at_cap=refuses)
    edge.upstream.script = writes(80)
    assert (await ask(edge.port, STREAMED)).body.count(DELTA) == 80
    usage = await record(edge)
    assert (usage.outcome, output_of(usage)) == ("ok", 8_000)
    assert (len(edge.owner.extends), edge.owner.cuts) == (1, [])


async def test_an_extension_that_stood_in_line_comes_as_a_late_verdict(edge: Edge) -> None:
    edge.owner.decide = holding(3_000)
    queued = Queued(ahead=1, owner_epoch=1)
    edge.owner.more = lambda ask: queued if ask.n == 1 else gives()(ask)
    go_on = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(message_start() + DELTA * 20)
        await go_on.wait()
        await turn.chunk(DELTA * 60 + message_end(8_000))
        await turn.write(b"0\r\n\r\n")

    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await until(lambda: edge.owner.extends)
        [first] = edge.owner.extends
        late = EDGE_VERDICT.format(edge=edge.owner.reserves[0].edge)
        for n, answer in ((0, denied()), (7, denied()), (1, gives()(first))):
            await edge.bus.publish(late, encode(Verdict(rid=first.rid, n=n, answer=answer)))
        live = edge.app[SPOOL]._live[first.rid]
        await until(lambda: live.sent is not None and live.sent.output_tokens > 3_000)
        go_on.set()
        assert (await client.answer()).body.count(DELTA) == 80


async def test_an_owner_that_dies_is_asked_again_under_the_same_number(edge: Edge) -> None:
    edge.owner.decide = holding(3_000)
    silent = 3

    def more(ask: Extend) -> Granted | None:
        return None if len(edge.owner.extends) <= silent else gives()(ask)

    edge.owner.more = more
    edge.upstream.script = writes(80)
    assert (await ask(edge.port, STREAMED)).body.count(DELTA) == 80
    assert [ask.n for ask in edge.owner.extends[: silent + 1]] == [1] * (silent + 1)


async def test_without_an_answer_the_stream_ends_at_its_hold_naming_the_fullest_budget_that_cuts(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extension, "GRACE_SECONDS", 0.2)
    fullest = Standing(budget_id="key:key:month", period="month", utilization_ppm=9, surpassed_ppm=0, resets_at=0)
    edge.owner.decide, edge.owner.more = holding(3_000, standings=(fullest,)), lambda ask: None
    edge.upstream.script = writes(80)
    answer = await ask(edge.port, STREAMED)
    assert well_formed(answer.body)
    assert b"monthly budget of key 'key'" in answer.body
    assert {ask.n for ask in edge.owner.extends} == {1}
    assert [cut.budget_id for cut in edge.owner.cuts] == ["key:key:month"]


async def test_a_client_that_leaves_while_more_is_asked_for_ends_the_asking(edge: Edge) -> None:
    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(message_start() + DELTA * 25)
        await turn.hung_up()

    edge.owner.decide, edge.owner.more = holding(3_000), lambda ask: None
    edge.upstream.script = script
    async with RawClient(edge.port) as client:
        client.send(post("/v1/messages", STREAMED))
        await until(lambda: edge.owner.extends)
        client.reset()
        assert (await record(edge)).outcome == "client_gone"
    await until(lambda: not edge.app[OWNER].of("0")._asked)


async def test_a_successor_knows_of_the_extension(start_edge: Start, tmp_path: Path) -> None:
    done = asyncio.Event()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(message_start() + DELTA * 25)
        await done.wait()

    def remembered() -> list[tuple[int, int]]:
        left = spool_folder.read(tmp_path / "edge", spool_folder.boot_id())
        return [(each.sent.output_tokens, each.sent.usage.held_nano_usd) for each in left.unfinished if each.sent]

    async with start_edge() as edge:
        edge.owner.decide, edge.owner.more = holding(3_000), gives(500)
        edge.upstream.script = script
        async with RawClient(edge.port) as client:
            client.send(post("/v1/messages", STREAMED))
            await until(lambda: remembered() == [(3_500, 7_000)])
        done.set()


class Paused:
    """A connection as the relay steers it."""

    reading = True

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True


async def test_a_stream_is_read_on_only_when_neither_its_client_nor_its_hold_keeps_it() -> None:
    connection, unused = Paused(), cast(Any, None)
    relay = Relay(unused, unused, unused, Settings(), None)
    relay.attach(cast(UpstreamConnection, connection))
    relay.wait()
    relay.client_slow()
    relay.client_ready()
    assert not connection.reading
    relay.client_slow()
    relay.go_on()
    assert not connection.reading
    relay.client_ready()
    assert connection.reading
    relay.close()


async def test_what_the_input_held_too_much_is_given_back_before_more_is_asked_for(edge: Edge) -> None:
    """It may be just what the budget lacks: large prompts are held at a bound far above what they come to."""
    order = list[str]()

    def more(asked: Extend) -> Granted:
        order.append("given back" if edge.owner.trueups else "asked first")
        return granted(100_000)

    edge.owner.decide, edge.owner.more = lambda asked: granted(1_000), more
    edge.upstream.script = writes(30)
    assert well_formed((await ask(edge.port, STREAMED)).body)
    assert order and set(order) == {"given back"}
    assert [told.input_tokens for told in edge.owner.trueups] == [10]


async def test_a_short_stream_that_needs_no_more_gives_nothing_back_by_itself(edge: Edge) -> None:
    edge.upstream.script = writes(3)
    assert well_formed((await ask(edge.port, STREAMED)).body)
    assert not edge.owner.trueups and not edge.owner.extends
