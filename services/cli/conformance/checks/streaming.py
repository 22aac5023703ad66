"""Items 6, 19, 20: streams are relayed at once, kept alive, and always ended in words."""

import asyncio
import itertools
import re
import time

from services.cli.conformance.checklist import check
from services.cli.conformance.events import names
from services.cli.conformance.gateway import header, message, told
from services.cli.conformance.provider import Script, Turn, chunk
from services.cli.conformance.recordings import stream_of
from services.cli.conformance.results import Broken, expect
from services.cli.conformance.scene import HEARTBEAT_SECONDS, Scene
from services.cli.conformance.wire import Answer

FIRST_TURN = stream_of("02-first-turn-197")
EVENTS = [event + b"\n\n" for event in FIRST_TURN.split(b"\n\n") if event]
PARTS = [
    *EVENTS[:2],
    b": a comment\n\n",
    b'event: ping\ndata: {"type":"ping"}\n\n',
    b": half a",
    b" comment\n",
    *EVENTS[2:],
]
DELAY_SECONDS = 0.05
KILLS_AT_A_TIME = 16
SILENCE_SECONDS = 300.0
"""As long as the client waits for a byte."""


@check(6, "provider")
async def each_event_ping_and_comment_is_relayed_at_once(scene: Scene) -> str:
    """Each part is sent when the one before has arrived: nothing waits for more to come."""
    arrived, written = asyncio.Event(), list[float]()
    scene.provider.script = _one_by_one(arrived, written)
    delays, sent = list[float](), b""
    asked = scene.gateway.request(
        scene.keys.main, message("slowly", stream=True), ("Accept-Encoding", "gzip, deflate, br, zstd")
    )
    async with scene.gateway.connection() as client:
        client.send(asked)
        for number, part in enumerate(PARTS):
            sent += part
            try:
                await client.until_body(sent, seconds=5)
            except (TimeoutError, AssertionError):
                raise Broken(f"held back or changed: part {number + 1} of {len(PARTS)}, {part[:40]!r}") from None
            delays.append(time.perf_counter() - written[number])
            arrived.set()
        answer = await client.answer()
    expect(answer.body == b"".join(PARTS), "the stream's bytes are changed")
    expect(answer.header("content-encoding") is None, f"it is encoded: {header(answer, 'content-encoding')}")
    middle = sorted(delays)[len(delays) // 2]
    expect(middle < DELAY_SECONDS, f"a part is {middle * 1000:.0f} ms late, more than {DELAY_SECONDS * 1000:.0f}")
    return f"{len(PARTS)} parts with ping and comments: median {middle * 1000:.1f} ms after the provider, not encoded"


def _one_by_one(arrived: asyncio.Event, written: list[float]) -> Script:
    async def script(turn: Turn) -> None:
        await turn.start_stream()
        for part in PARTS:
            written.append(time.perf_counter())
            await turn.chunk(part)
            if part is not PARTS[-1]:
                await arrived.wait()
                arrived.clear()
        await turn.write(b"0\r\n\r\n")

    return script


@check(19, "provider", "patience")
async def silence_is_filled_with_pings(scene: Scene) -> str:
    """As long as the client waits, where that is asked for; with a gateway of our own, some of its heartbeats."""
    beat = scene.facts.heartbeat_seconds
    silence = SILENCE_SECONDS + 10 if beat >= HEARTBEAT_SECONDS else 6.5 * beat
    came = list[float]()
    scene.provider.script = _silent(silence)
    async with scene.gateway.connection() as client:
        client.send(scene.gateway.request(scene.keys.main, message("think", stream=True)))
        await client.until_body(b"message_start")
        began = time.monotonic()
        body = b""
        while b"message_stop" not in body:
            async with asyncio.timeout(silence + 10):
                if not (data := await client.reader.read(2**16)):
                    break
            body += data
            came += [time.monotonic() - began] * data.count(b"event: ping")
    expect(b"message_stop" in body, f"after {silence:.0f} s of silence the stream ended without message_stop")
    expect(came, f"no ping in {silence:.1f} s of silence")
    gaps = [later - sooner for sooner, later in zip([0.0, *came], came, strict=False)]
    expect(max(gaps) < beat * 1.5 + 0.5, f"{max(gaps):.1f} s without a ping")
    return f"{len(came)} pings in {silence:.1f} s of silence (every {beat:g} s), then the end of the stream"


def _silent(seconds: float) -> Script:
    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(EVENTS[0])
        await asyncio.sleep(seconds)
        await turn.chunk(b"".join(EVENTS[1:]))
        await turn.write(b"0\r\n\r\n")

    return script


_OFFSET = re.compile(rb"cut after (\d+) bytes")


@check(20, "provider")
async def a_stream_that_is_cut_at_any_byte_ends_in_words(scene: Scene) -> str:
    """The provider's connection is reset after every byte of the recorded stream, and its body ended around each event."""
    scene.provider.script = _cut
    room = asyncio.Semaphore(KILLS_AT_A_TIME)

    async def one(offset: int, how: str) -> str:
        async with room:
            asked = message(f"{how}: cut after {offset} bytes", stream=True)
            answer = await scene.gateway.send(scene.gateway.request(scene.keys.main, asked))
        return _ending(answer, f"{how} after {offset} of {len(FIRST_TURN)} bytes")

    resets = [(offset, "reset") for offset in range(1, len(FIRST_TURN))]
    ends = [(offset, "end") for offset in sorted(_around_events())]
    endings = await asyncio.gather(*(one(offset, how) for offset, how in resets + ends))
    found = ", ".join(f"{ending} {endings.count(ending)}×" for ending in sorted(set(endings)))
    return f"reset after each of {len(resets)} bytes, ended after {len(ends)} around events: {found}"


def _around_events() -> set[int]:
    ends = list(itertools.accumulate(len(event) for event in EVENTS))
    return {offset for end in ends for offset in (end - 2, end - 1, end, end + 1) if 0 < offset < len(FIRST_TURN)}


async def _cut(turn: Turn) -> None:
    found = _OFFSET.search(turn.request.body)
    part = FIRST_TURN[: int(found.group(1))] if found else FIRST_TURN
    await turn.start_stream()
    await turn.chunk(part)
    if b"reset: cut" in turn.request.body:
        await asyncio.sleep(0.005)  # else the reset may overtake the bytes
        turn.reset()
    else:
        await turn.write(chunk(b""))


def _ending(answer: Answer, case: str) -> str:
    """How it ended, in words. Raises Broken."""
    if answer.status != 200:
        expect(answer.status >= 500, f"{case}: {told(answer)}")
        return f"{answer.status}"
    expect(answer.whole, f"{case}: a bare close")
    found = names(answer.body)
    expect(found, f"{case}: an empty stream")
    expect(found[-1] in ("message_stop", "error"), f"{case}: it ends with {found[-1]}")
    return found[-1]


@check(20, "provider")
async def an_error_event_of_the_provider_is_the_end(scene: Scene) -> str:
    recorded_error = stream_of("08a-midstream-error-329")

    async def script(turn: Turn) -> None:
        await turn.start_stream()
        await turn.chunk(recorded_error)
        await turn.write(chunk(b""))

    answer = await scene.ask(script=script, stream=True)
    expect(answer.body == recorded_error, "an error event of the provider is not passed on as sent")
    return "the provider's own error event passes as sent"
