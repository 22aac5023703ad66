"""The simulator as a process of its own: started, hung up on, killed and started again."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.simulator.settings import Settings
from shared.settings import environ_of
from tests.fixtures.waiting import until

SLOW = {"x-api-key": "k", "x-simulator": "output_tokens=1000;chunks=200;chunk_ms=20;input_tokens=10"}


@asynccontextmanager
async def simulator(data: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its base URL; ended by SIGTERM unless it is gone already."""
    ready = data / "ready.json"
    ready.unlink(missing_ok=True)
    variables = environ_of(Settings(data_dir=str(data), ready_file=str(ready)), "SIMULATOR")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.simulator", env=os.environ | variables
    )
    try:
        await until(ready.exists, what="the ready file")
        yield process, f"http://127.0.0.1:{json.loads(ready.read_bytes())['ports']['http']}"
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 20)


def body(number: int, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"request {number}"}]
    return {"model": "claude-sonnet-5-5", "max_tokens": 2_000, "messages": messages, "stream": stream}


def bill(data: Path) -> list[dict[str, Any]]:
    path = data / "bill.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.alone
async def test_hanging_up_stops_the_generation_streamed_or_not(tmp_path: Path) -> None:
    async with simulator(tmp_path) as (_, url), aiohttp.ClientSession() as client:
        async with client.post(f"{url}/v1/messages", json=body(1, True), headers=SLOW) as answer:
            await answer.content.readuntil(b"text_delta")
            answer.close()
        await until(lambda: len(bill(tmp_path)) == 1, what="the first line")
        try:
            async with asyncio.timeout(0.3), client.post(f"{url}/v1/messages", json=body(2, False), headers=SLOW):
                pass
        except TimeoutError:
            await until(lambda: len(bill(tmp_path)) == 2, what="the second line")
    for line in bill(tmp_path):
        made = line["generated_output_tokens"]
        assert (line["outcome"], 0 < made < 500) == ("client_gone", True)
        assert line["cost_nano_usd"] == 10 * 2_000 + made * 10_000


async def test_a_kill_leaves_whole_lines_and_the_next_start_goes_on(tmp_path: Path) -> None:
    async with simulator(tmp_path) as (process, url), aiohttp.ClientSession() as client:
        async with client.post(f"{url}/v1/messages", json=body(1, False), headers={"x-api-key": "k"}) as answer:
            assert answer.status == 200
        async with client.post(f"{url}/v1/messages", json=body(2, True), headers=SLOW) as answer:
            await answer.content.readuntil(b"text_delta")
            process.kill()
            await process.wait()
    assert len(bill(tmp_path)) == 1
    async with simulator(tmp_path) as (process, url), aiohttp.ClientSession() as client:
        async with client.get(f"{url}/bill") as answer:
            assert (await answer.json())["count"] == 1
        async with client.get(f"{url}/readyz") as answer:
            assert answer.status == 200


async def test_a_stop_breaks_open_streams_and_bills_them(tmp_path: Path) -> None:
    wish = {"x-api-key": "k", "x-simulator": "output_tokens=1000;chunks=200;chunk_ms=100"}
    async with (
        simulator(tmp_path) as (process, url),
        aiohttp.ClientSession() as client,
        client.post(f"{url}/v1/messages", json=body(1, True), headers=wish) as answer,
    ):
        await answer.content.readuntil(b"text_delta")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 3) == 0
    [line] = bill(tmp_path)
    assert (line["outcome"], line["cost_nano_usd"] > 0) == ("reset", True)
