"""The Anthropic SDK and plain HTTP against the whole of Sluicegate, as their users would call it."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from tests.fixtures.up import Up, running

MODEL = "claude-sonnet-5-5"
HELLO: list[MessageParam] = [{"role": "user", "content": "hello"}]
WEATHER: ToolParam = {
    "name": "weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    async with running(tmp_path) as started:
        yield started


async def test_everything_the_sdk_does_works_through_the_gateway(up: Up) -> None:
    """One installation for all of it: starting one costs seconds."""
    async with anthropic.AsyncAnthropic(base_url=up.base_url, auth_token=up.first_key, max_retries=0) as client:
        await _answers_whole(client)
        await _streams(client)
        await _uses_a_tool_over_two_turns(client)
        assert (await client.messages.count_tokens(model=MODEL, messages=HELLO)).input_tokens > 0
        models = [model.id async for model in client.models.list()]
        assert MODEL in models
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.batches.list()
    async with anthropic.AsyncAnthropic(base_url=up.base_url, api_key="vk-unknown", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            await stranger.messages.create(model=MODEL, max_tokens=10, messages=HELLO)
    await _probes_are_answered(up)


async def _answers_whole(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(model=MODEL, max_tokens=200, messages=HELLO)
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens > 0
    assert answer._request_id


async def _streams(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(model=MODEL, max_tokens=200, messages=HELLO) as stream:
        pieces = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert len(pieces) > 1
    assert final.stop_reason == "end_turn"


async def _uses_a_tool_over_two_turns(client: anthropic.AsyncAnthropic) -> None:
    asked: list[MessageParam] = [{"role": "user", "content": "[[sim: tool=weather]] what is the weather in Rome?"}]
    first = await client.messages.create(model=MODEL, max_tokens=500, messages=asked, tools=[WEATHER])
    call = next(block for block in first.content if block.type == "tool_use")
    assert first.stop_reason == "tool_use"
    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}],
    }
    turns: list[MessageParam] = [*asked, {"role": "assistant", "content": first.content}, result]
    second = await client.messages.create(model=MODEL, max_tokens=500, messages=turns, tools=[WEATHER])
    assert second.stop_reason == "end_turn"


async def _probes_are_answered(up: Up) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("", "/", "/api/hello", "/anthropic", "/anthropic/api/hello"):
            async with session.head(up.edge_url + path) as answer:
                assert answer.status == 200, path
        key = {"x-api-key": up.first_key, "authorization": f"Bearer {up.first_key}", "anthropic-version": "2023-06-01"}
        body = {"model": MODEL, "max_tokens": 10, "messages": HELLO}
        async with session.post(f"{up.edge_url}/v1/messages?beta=true", json=body, headers=key) as answer:
            assert answer.status == 200
            assert answer.headers["request-id"]
