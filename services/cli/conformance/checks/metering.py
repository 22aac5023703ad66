"""Items 14, 15, 16, 18: what is charged, and by which id it is found."""

import asyncio
from typing import Any
from uuid import uuid4

import msgspec

from services.cli.conformance.books import OUR_ID, Entry
from services.cli.conformance.checklist import check
from services.cli.conformance.events import event
from services.cli.conformance.gateway import header, message, told
from services.cli.conformance.provider import Script, Turn, message_json, plain, says, stream
from services.cli.conformance.recordings import recorded, stream_of
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene
from services.cli.conformance.wire import Answer

Usage = dict[str, Any]

DOLLARS_PER_MILLION = {
    "claude-fable-5-2": (8, 40, 10, 16, 0.20),
    "claude-fable-5-1": (10, 50, 12.50, 20, 0.25),
    "claude-fable-5": (10, 50, 12.50, 20, 1),
    "claude-opus-5-5": (4, 20, 5, 8, 0.20),
    "claude-opus-5": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-8": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-5": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-1": (15, 75, 18.75, 30, 1.50),
    "claude-sonnet-5-5": (2, 10, 2.50, 4, 0.10),
    "claude-sonnet-5": (2, 10, 2.50, 4, 0.20),
    "claude-sonnet-4-6": (3, 15, 3.75, 6, 0.30),
    "claude-haiku-5-5": (0.10, 0.50, 0.125, 0.20, 0.01),
    "claude-haiku-4-5": (1, 5, 1.25, 2, 0.10),
}
"""Public prices of November 2026 (contract 2.7): input, output, write 5m, write 1h, cache read."""
COUNTS = (1000, 40, 3000, 4000, 2000)


def usage(inputs: int, output: int, write_5m: int = 0, write_1h: int = 0, read: int = 0, **more: object) -> Usage:
    """As the provider reports it."""
    split = {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h}
    found: Usage = {
        "input_tokens": inputs,
        "cache_creation_input_tokens": write_5m + write_1h,
        "cache_creation": split,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }
    return found | more


def streamed(model: str, final: Usage) -> Script:
    """message_start knows the input and a first token; each message_delta is cumulative, the last one counts."""
    first = final | {"output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": first}
    half = final | {"output_tokens": final["output_tokens"] // 2}
    parts = [
        event("message_start", message=head | {"stop_reason": None, "stop_sequence": None}),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hello"}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": None, "stop_sequence": None}, usage=half),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=final),
        event("message_stop"),
    ]
    return says(stream(b"".join(parts)))


class Call(msgspec.Struct, frozen=True):
    """A call that is answered with so much usage, and what it costs by the table, in nano-USD."""

    what: str
    asked: str
    answered: str
    usage: Usage
    nano_usd: float


async def booked(scene: Scene, calls: list[Call]) -> list[Entry]:
    """The ledger's entries for each, streamed and not. Raises Broken where one costs anything else."""
    answers = list[Answer]()
    for call in calls:
        whole = says(plain(message_json(model=call.answered, usage=call.usage)))
        for script, stream_it in ((whole, False), (streamed(call.answered, call.usage), True)):
            answer = await scene.ask(script=script, model=call.asked, stream=stream_it, max_tokens=2000)
            expect(answer.status == 200, f"{call.what}: {told(answer)}")
            answers.append(answer)
    entries = await asyncio.gather(*(scene.books.of(answer) for answer in answers))
    for entry, call in zip(entries, [call for call in calls for _ in range(2)], strict=True):
        found, wanted = entry.list_nano_usd / 1e9, round(call.nano_usd) / 1e9
        expect(found == wanted, f"{call.what}: {found:.9f} USD in the ledger, {wanted:.9f} by the table")
        expect(not entry.attempts[0]["estimated"], f"{call.what}: reported usage is booked as an estimate")
    return entries


def _by_table(model: str, prices: tuple[float, ...]) -> Call:
    expected = sum(count * price * 1000 for count, price in zip(COUNTS, prices, strict=True))
    return Call(model, model, model, usage(*COUNTS), expected)


@check(14, "provider", "books")
async def each_class_of_tokens_costs_what_the_table_says(scene: Scene) -> str:
    await booked(scene, [_by_table(model, prices) for model, prices in DOLLARS_PER_MILLION.items()])
    return f"{len(DOLLARS_PER_MILLION)} models × 5 classes, streamed and not: to the nano-dollar of the table"


SPECIAL: dict[str, tuple[str, Usage, float]] = {
    "writes without their split": (
        "claude-opus-5-5",
        {"input_tokens": 10, "cache_creation_input_tokens": 5000, "output_tokens": 0},
        5000 * 5000 + 10 * 4000,
    ),
    "above Haiku's band": ("claude-haiku-5-5", usage(0, 0, read=100_001), 100_001 * 50),
    "at Haiku's band": ("claude-haiku-5-5", usage(0, 0, read=100_000), 100_000 * 10),
    "speed": ("claude-opus-5-5", usage(1000, 100, speed="fast"), 1000 * 8000 + 100 * 40_000),
    "inference_geo": ("claude-opus-5-5", usage(1000, 100, inference_geo="us"), 1100 * 4000 + 110 * 20_000),
    "server tools": (
        "claude-opus-5-5",
        usage(1000, 100, server_tool_use={"web_search_requests": 2}),
        20_000_000 + 6_000_000,
    ),
    "iterations": (
        "claude-opus-5-5",
        usage(
            1000,
            50,
            iterations=[
                {"type": "compaction", "model": "claude-haiku-4-5", "input_tokens": 5000, "output_tokens": 100},
                {"type": "message", "input_tokens": 1000, "output_tokens": 50},
            ],
        ),
        5000 * 1000 + 100 * 5000 + 1000 * 4000 + 50 * 20_000,
    ),
}


@check(14, "provider", "books")
async def what_changes_a_price_is_read_from_the_answer(scene: Scene) -> str:
    await booked(scene, [Call(case, model, model, final, cost) for case, (model, final, cost) in SPECIAL.items()])
    return ", ".join(SPECIAL)


@check(14, "provider", "books")
async def an_answer_without_usage_is_estimated(scene: Scene) -> str:
    answer = await scene.ask(script=says(plain(message_json(usage=None).replace(b', "usage": null', b""))))
    entry = await scene.books.of(answer)
    expect(entry.cost_nano_usd > 0, "an answer without usage is free")
    expect(entry.attempts[0]["estimated"], "an answer without usage is not marked as an estimate")
    return "without usage: estimated, not free"


@check(15, "provider", "books")
async def the_model_that_answered_is_billed(scene: Scene) -> str:
    asked, answered = "claude-opus-5-5", "claude-haiku-4-5"
    call = Call(f"asked {asked}, answered {answered}", asked, answered, usage(1000, 100), 1000 * 1000 + 100 * 5000)
    for entry in await booked(scene, [call]):
        found = (entry.attempts[0]["request_model"], entry.attempts[0]["response_model"])
        expect(found == (asked, answered), f"the ledger names {found}")
    return f"asked {asked}, answered {answered}: billed as the latter, both named"


@check(16, "provider", "books")
async def a_broken_stream_and_its_repeat_are_two_entries_of_one_turn(scene: Scene) -> str:
    """Fixtures 08a and 08b: the same turn, first streamed, then whole."""
    broken, repeat = recorded("08a-midstream-error-329"), recorded("08b-nonstream-fallback-329")
    first = await scene.sent(
        scene.gateway.replay(broken, scene.keys.main), says(stream(stream_of("08a-midstream-error-329")))
    )
    second = await scene.sent(
        scene.gateway.replay(repeat, scene.keys.main), says(plain(message_json(model="claude-opus-5-5")))
    )
    rows = [(await scene.books.of(answer)).attempts for answer in (first, second)]
    expect([len(each) for each in rows] == [1, 1], f"{[len(each) for each in rows]} entries instead of one each")
    turns = {(each[0]["session_id"], each[0]["body_digest"]) for each in rows}
    expect(len(turns) == 1, "they are not the same session and body hash")
    expect(all(each[0]["cost_nano_usd"] > 0 for each in rows), "one of them is free")
    return "a broken stream and its repeat: two entries, same session and body hash, both charged"


@check(16, "provider", "books")
async def who_hangs_up_pays_for_what_was_made(scene: Scene) -> str:
    session = ("X-Claude-Code-Session-Id", str(uuid4()))
    scene.provider.script = _endless
    async with scene.gateway.connection() as client:
        client.send(scene.gateway.request(scene.keys.main, message("hang up", stream=True), session))
        await client.until_body(b"content_block_delta")
        client.close()
        [entry] = await scene.books.of_session(session[1], 1)
    expect(entry.cost_nano_usd > 0, "an aborted stream is free")
    return f"an aborted stream: {entry.cost_nano_usd / 1e9:.6f} USD, estimated {bool(entry.attempts[0]['estimated'])}"


async def _endless(turn: Turn) -> None:
    first = stream_of("02-first-turn-197").split(b"\n\n")
    await turn.start_stream()
    await turn.chunk(b"\n\n".join(first[:3]) + b"\n\n")
    await turn.chunk(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "more " * 40}))
    await turn.hung_up()
    turn.reset()


@check(18, "provider")
async def every_answer_has_an_id(scene: Scene) -> str:
    theirs = await scene.ask(script=says(plain(message_json())))
    expect(header(theirs, "request-id") == "req_upstream", f"the provider's became {header(theirs, 'request-id')!r}")
    bare = plain(message_json()).replace(b"request-id: req_upstream\r\n", b"")
    ours = await scene.ask(script=says(bare))
    expect(header(ours, "request-id"), "an answer of a provider without request-id has none")
    refused = await scene.gateway.post("", message("no key"))
    expect(header(refused, "request-id"), "a refusal has no request-id")
    return "the provider's is kept, one is added where there is none, refusals have one"


@check(18, "provider", "books")
async def the_ledger_knows_each_id(scene: Scene) -> str:
    row = (await scene.books.of(await scene.ask(script=says(plain(message_json()))))).attempts[0]
    expect(row["upstream_request_id"] == "req_upstream", f"the ledger has {row['upstream_request_id']!r}")
    ours = await scene.ask(script=says(plain(message_json()).replace(b"request-id: req_upstream\r\n", b"")))
    expect(header(ours, "request-id") == header(ours, OUR_ID), "the id that is added is not the ledger's")
    await scene.books.of(ours)
    return "both are in the ledger"
