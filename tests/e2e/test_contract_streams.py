"""Client contract, items 6, 8, 16, 19, 20: streams are relayed at once, kept alive, ended well, and paid for when broken."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.edge.settings import Settings
from tests.fixtures.contract import Gateway, installation, message, recorded, request, secret
from tests.fixtures.exchanges import parse
from tests.fixtures.money import bill_lines
from tests.fixtures.upstream import CAPTURES, STREAM_HEAD, Turn, plain, says, stream
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST_TURN = (CAPTURES / "02-first-turn-197.sse").read_bytes()
EVENTS = [event + b"\n\n" for event in FIRST_TURN.split(b"\n\n") if event]
HEARTBEAT_SECONDS = 0.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Its heart beats faster than the real one's, so that silence is short here."""
    folder = tmp_path_factory.mktemp("streams")
    async with installation(folder, SLUICEGATE_EDGE_HEARTBEAT_SECONDS=str(HEARTBEAT_SECONDS)) as running:
        yield running


def names(body: bytes) -> list[str]:
    return [name for name, _ in parse(body)]


@pytest.mark.alone
async def test_each_event_ping_and_comment_is_relayed_at_once(gateway: Gateway) -> None:
    """Each part is sent when the one before has arrived: nothing waits for more to come."""
    parts = [
        *EVENTS[:2],
        b": a comment\n\n",
        b'event: ping\ndata: {"type":"ping"}\n\n',
        b": half a",
        b" comment\n",
        *EVENTS[2:],
    ]
    arrived, written = asyncio.Event(), list[float]()

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        for part in parts:
            written.append(time.perf_counter())
            await turn.chunk(part)
            if part is not parts[-1]:
                await arrived.wait()
                arrived.clear()
        await turn.write(b"0\r\n\r\n")

    gateway.upstream.script = script
    delays, sent = list[float](), b""
    async with RawClient(gateway.port) as client:
        client.send(request("recorded", message("slowly", stream=True), [("Accept-Encoding", "gzip, br, zstd")]))
        for number, part in enumerate(parts):
            sent += part
            answer = await client.until_body(sent)
            delays.append(time.perf_counter() - written[number])
            arrived.set()
        answer = await client.answer()
    assert answer.body == b"".join(parts)
    assert answer.header("content-encoding") is None
    assert sorted(delays)[len(delays) // 2] < 0.05, delays


@pytest.mark.parametrize("flag", [{}, {"stream": False}], ids=["absent", "false"])
async def test_what_is_not_asked_to_stream_is_never_streamed(gateway: Gateway, flag: dict[str, bool]) -> None:
    answer = await gateway.simulate("dev", "whole please", "chunks=5", **flag)
    assert (answer.status, answer.header("content-type")) == (200, b"application/json")
    assert answer.body.startswith(b'{"')


async def test_silence_is_filled_with_pings_that_a_client_takes(gateway: Gateway) -> None:
    ask = request("dev", message("think long", stream=True), [("x-simulator", "slow=2,chunks=3")])
    found = names((await gateway.send(ask)).body)
    assert found.count("ping") >= 2
    assert found[0] == "message_start"
    assert found[-1] == "message_stop"


async def test_a_silence_before_the_answer_is_waited_for(gateway: Gateway) -> None:
    ask = request("dev", message("late", stream=True), [("x-simulator", "late_headers=1.5")])
    assert names((await gateway.send(ask)).body)[-1] == "message_stop"


async def test_a_model_may_think_longer_than_the_client_waits() -> None:
    """The client gives up after 300 s without a byte; a ping every 15 s keeps it. No limit on a stream as a whole."""
    settings = Settings()
    assert settings.heartbeat_seconds == 15
    assert settings.upstream_idle_timeout_seconds > 600
    assert not [name for name in settings.__struct_fields__ if "total" in name]


@pytest.mark.parametrize("how", ["reset=in_block", "reset=after_start", "reset=after_block", "reset=before_stop"])
async def test_a_stream_that_breaks_ends_in_words(gateway: Gateway, how: str) -> None:
    ask = request("dev", message(f"break {how}", stream=True), [("x-simulator", f"{how},chunks=6,output_tokens=60")])
    answer = await gateway.send(ask)
    assert answer.whole
    assert names(answer.body)[-1] == "error"
    row = await gateway.entry(answer)
    assert (row["outcome"], row["kind"]) == ("upstream_broken", "settled")
    assert row["cost_nano_usd"] > 0


@pytest.mark.parametrize("how", ["after_start", "no_delta", "no_stop"])
async def test_a_stream_that_ends_too_early_ends_in_words(gateway: Gateway, how: str) -> None:
    ask = request("dev", message(f"end {how}", stream=True), [("x-simulator", f"clean_end={how},output_tokens=60")])
    answer = await gateway.send(ask)
    assert answer.whole
    assert names(answer.body)[-1] == "error"
    row = await gateway.entry(answer)
    [billed] = [line for line in bill_lines(gateway.up.bill) if line["request_id"] == row["upstream_request_id"]]
    if not row["estimated"]:
        assert row["cost_nano_usd"] == billed["cost_nano_usd"]


async def test_an_error_of_the_provider_within_a_stream_is_its_end(gateway: Gateway) -> None:
    recording, sse = recorded("08a-midstream-error-329"), (CAPTURES / "08a-midstream-error-329.sse").read_bytes()
    answer, _ = await gateway.sent_up(recording.bytes_for(secret("recorded")), says(stream(sse)))
    assert (answer.body, names(answer.body)[-1]) == (sse, "error")


async def test_a_broken_stream_and_its_repeat_are_two_entries_of_one_turn(gateway: Gateway) -> None:
    """Fixtures 08a and 08b: the same turn, first streamed, then whole. Both are paid for, and can be found together."""
    broken, repeat = recorded("08a-midstream-error-329"), recorded("08b-nonstream-fallback-329")
    sse = (CAPTURES / "08a-midstream-error-329.sse").read_bytes()
    first, _ = await gateway.sent_up(broken.bytes_for(secret("recorded")), says(stream(sse)))
    second, _ = await gateway.sent_up(repeat.bytes_for(secret("recorded")), says(plain(WHOLE)))
    entries = [await gateway.entry(answer) for answer in (first, second)]
    assert [(entry["stream"], entry["outcome"]) for entry in entries] == [(True, "upstream_error"), (False, "ok")]
    assert len({(entry["session_id"], entry["body_digest"]) for entry in entries}) == 1
    assert all(entry["cost_nano_usd"] > 0 for entry in entries)
    assert (await gateway.request_row(second))["repeat"]


WHOLE = (
    b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-5-5","content":[{"type":"text","text":"ok"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":5}}'
)


async def test_who_hangs_up_within_a_stream_pays_for_what_was_made(gateway: Gateway) -> None:
    session = ("X-Claude-Code-Session-Id", "00000000-0000-4000-8000-0000000000ff")
    wish = ("x-simulator", "chunks=50,chunk_ms=50,output_tokens=500")
    async with RawClient(gateway.port) as client:
        client.send(request("dev", message("hang up", stream=True), [session, wish]))
        await client.until_body(b"content_block_delta")
        client.close()
        [row] = await gateway.entries(session_id=session[1])
    assert (row["outcome"], row["estimated"]) == ("client_gone", True)
    billed = await until(
        lambda: [line for line in bill_lines(gateway.up.bill) if line["request_id"] == row["upstream_request_id"]]
    )
    assert billed[0]["outcome"] == "client_gone"
    assert row["cost_nano_usd"] == pytest.approx(billed[0]["cost_nano_usd"], rel=0.5)


async def test_a_gzip_answer_is_neither_waited_for_nor_asked_for(gateway: Gateway) -> None:
    asked = request("recorded", message("zip", stream=True), [("Accept-Encoding", "gzip")])
    _, sent = await gateway.sent_up(asked, says(STREAM_HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(FIRST_TURN), FIRST_TURN)))
    assert sent.header("accept-encoding") == b"identity"
