"""Sends the traffic: so many clients at once, for so many requests or seconds."""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping

import aiohttp
import msgspec

from services.simulator.load import summary as summaries
from services.simulator.load.mix import MIX, Kind, Shot, shot
from services.simulator.load.summary import Done, Result, Summary

Progress = Callable[[Done, Summary], None]
AGAIN_SECONDS = 0.5
TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the traffic goes: the base URL a client would be given, and the virtual keys that take turns."""

    base_url: str
    keys: tuple[str, ...]
    models: tuple[str, ...] = ("claude-sonnet-5-5", "claude-haiku-5-5")


async def simulate(
    target: Target,
    *,
    count: int | None = None,
    seconds: float | None = None,
    concurrency: int = 20,
    seed: int = 0,
    mix: Mapping[Kind, int] = MIX,
    directives: str = "",
    run: str = "",
    patience: int = 0,
    progress: Progress | None = None,
) -> Summary:
    """Make traffic until `count` requests are done or `seconds` are over, whichever comes first; 100 when neither is given.

    seed: the same seed makes the same mix. run: part of every prompt, made up when empty, so that no two runs send the
    same `messages`. directives: added to every request's `x-simulator`. progress: called after each request.
    """
    most = count if count is not None else (100 if seconds is None else 1 << 62)
    found, durations, firsts = Summary(), list[int](), list[int]()
    dice, name, began = random.Random(seed), run or uuid.uuid4().hex, time.monotonic()
    until = began + (seconds if seconds is not None else 1e9)

    def next_shots() -> Iterator[tuple[int, Shot]]:
        for number in range(most):
            if time.monotonic() >= until:
                return
            yield number, shot(number, name, dice, mix, target.models, directives)

    shots = next_shots()

    async def client(session: aiohttp.ClientSession) -> None:
        for number, each in shots:
            done = await _send(session, target, number, each)
            for _ in range(patience):
                if done.status not in (0, 503):
                    break
                await asyncio.sleep(AGAIN_SECONDS)
                done = await _send(session, target, number, each)
            found.add(done)
            if done.result == "ok":
                durations.append(done.duration_ms)
                firsts.append(done.ttft_ms)
            if progress:
                progress(done, found)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT, auto_decompress=False) as session:
        await asyncio.gather(*(client(session) for _ in range(concurrency)))
    return _closed(found, time.monotonic() - began, firsts, durations)


def _closed(found: Summary, seconds: float, firsts: list[int], durations: list[int]) -> Summary:
    found.seconds = round(seconds, 3)
    found.requests_per_second = round(found.total / seconds, 1) if seconds else 0.0
    found.ttft_p50_ms, found.ttft_p99_ms = summaries.percentile(firsts, 50), summaries.percentile(firsts, 99)
    found.duration_p50_ms = summaries.percentile(durations, 50)
    found.duration_p99_ms = summaries.percentile(durations, 99)
    return found


async def _send(session: aiohttp.ClientSession, target: Target, number: int, each: Shot) -> Done:
    """One request, as a client without retries would make it."""
    began = time.monotonic()
    url = f"{target.base_url.rstrip('/')}/v1/messages?beta=true"
    headers = each.headers | {"authorization": f"Bearer {target.keys[number % len(target.keys)]}"}
    status, request_id, ttft_ms, data, ended = 0, "", -1, bytearray(), False
    try:
        async with session.post(url, data=each.body, headers=headers) as answer:
            status, request_id = answer.status, answer.headers.get("request-id", "")
            async for part in answer.content.iter_any():
                if ttft_ms < 0:
                    ttft_ms = _ms(began)
                data += part
                if each.hang_up_after and status == 200 and len(data) >= each.hang_up_after:
                    answer.close()  # the socket too: this is what Ctrl-C looks like from the other side
                    break
            else:
                ended = True
    except (aiohttp.ClientError, TimeoutError):
        ended = False
    seen = bytes(data)
    read, made = summaries.tokens(seen)
    return Done(
        number=number,
        kind=each.kind,
        result=_result(each, status, ended, seen),
        status=status,
        request_id=request_id,
        error_type=summaries.error_type(seen) if status != 200 or b"event: error" in seen else "",
        ttft_ms=ttft_ms,
        duration_ms=_ms(began),
        input_tokens=read,
        output_tokens=made,
    )


def _result(each: Shot, status: int, ended: bool, seen: bytes) -> Result:
    if status == 0:
        return "unreachable"
    if status != 200:
        return "refused" if status < 500 else "failed"
    if each.hang_up_after and not ended and len(seen) >= each.hang_up_after:
        return "disconnected"
    good = ended and (b"event: message_stop" in seen if each.stream else seen.endswith(b"}"))
    return "ok" if good and b"event: error" not in seen else "broken"


def _ms(began: float) -> int:
    return round((time.monotonic() - began) * 1_000)
