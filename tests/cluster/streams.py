"""Keeps so many streams open through the edge, and counts those that did not end as they should. Runs in a pod, from a ConfigMap.

It needs aiohttp alone. Its last line is JSON; the exit code is 1 if a stream was cut, or none was ever open.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter

import aiohttp

END = b"event: message_stop"
TAIL_BYTES = 4096


async def stream(session: aiohttp.ClientSession, url: str, key: str, seconds: float) -> str:
    """One stream of so many seconds → `whole`, `cut`, or why it never began."""
    directives = {"x-simulator": f"output_tokens=400;chunks=100;chunk_ms={int(seconds * 10)}"}
    headers = {"authorization": f"Bearer {key}", "anthropic-version": "2023-06-01"} | directives
    body = {
        "model": "claude-haiku-5-5",
        "max_tokens": 500,
        "stream": True,
        "messages": [{"role": "user", "content": "go"}],
    }
    began, tail = False, b""
    try:
        async with session.post(f"{url}/v1/messages", json=body, headers=headers) as answer:
            if answer.status != 200:
                return f"refused {answer.status}"
            async for chunk in answer.content.iter_any():
                began, tail = True, (tail + chunk)[-TAIL_BYTES:]
    except aiohttp.ClientError as error:
        return "cut" if began else f"not begun: {type(error).__name__}"
    return "whole" if END in tail else "cut"


async def keep_open(url: str, key: str, count: int, seconds: float, until: float) -> Counter[str]:
    """Each ends and begins anew, none of them at the same time, until the time is over; then all end."""
    told: Counter[str] = Counter()

    async def again(place: int) -> None:
        await asyncio.sleep(seconds * place / count)
        while time.monotonic() < until:
            told[await stream(session, url, key, seconds)] += 1

    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    # A new connection each: kept ones would all stay with the pods that were there first.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await asyncio.gather(*(again(place) for place in range(count)))
    return told


def main() -> None:
    count, seconds = int(os.environ.get("STREAMS", "120")), float(os.environ.get("STREAM_SECONDS", "45"))
    until = time.monotonic() + float(os.environ["LOAD_SECONDS"])
    told = asyncio.run(keep_open(os.environ["EDGE_URL"], os.environ["KEY"], count, seconds, until))
    sys.stdout.write(json.dumps(dict(sorted(told.items()))) + "\n")
    sys.exit(1 if told["cut"] or not told["whole"] else 0)


if __name__ == "__main__":
    main()
