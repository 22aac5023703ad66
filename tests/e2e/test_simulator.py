"""The simulator on a real socket: every way to answer and to fail, and the bill that each leaves."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.simulator.app import build_app
from services.simulator.load import KINDS, Done, Summary, Target, simulate
from services.simulator.settings import Settings
from shared.digest import body_digest

Client = TestClient[web.Request, web.Application]
KEY = {"x-api-key": "sk-test"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with TestClient(TestServer(build_app(Settings(data_dir=str(tmp_path))))) as made:
        yield made


@pytest.fixture
async def sdk(client: Client) -> AsyncIterator[anthropic.AsyncAnthropic]:
    url = str(client.make_url("/"))
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sk-test", max_retries=0) as made:
        yield made


def post(client: Client, sim: str = "", **body: Any) -> Any:
    whole = {"model": "claude-sonnet-5-5", "max_tokens": 9_000, "messages": [{"role": "user", "content": "hello"}]}
    return client.post("/v1/messages?beta=true", json=whole | body, headers=KEY | {"x-simulator": sim})


async def bill(client: Client) -> list[dict[str, Any]]:
    async with client.get("/bill/lines") as answer:
        return list((await answer.json())["items"])


async def billed(client: Client, count: int) -> list[dict[str, Any]]:
    """The lines, once there are so many."""
    async with asyncio.timeout(5):
        while True:
            if len(lines := await bill(client)) >= count:
                return lines
            await asyncio.sleep(0.01)


async def test_a_whole_answer_is_json_and_its_bill_is_its_usage(client: Client) -> None:
    async with post(client, "input_tokens=1000;output_tokens=500;cache_read=2000") as answer:
        told = await answer.json()
        assert answer.status == 200 and answer.headers["request-id"].startswith("req_")
    [line] = await bill(client)
    assert line["usage"] == told["usage"]
    # sonnet-5-5: 2, 10 and 0.10 USD per million
    assert line["cost_nano_usd"] == 1_000 * 2_000 + 500 * 10_000 + 2_000 * 100
    assert line["request_id"] == answer.headers["request-id"]
    assert (line["outcome"], line["status"], line["stream"]) == ("complete", 200, False)


async def test_the_bill_has_the_digests_of_the_bytes_as_sent(client: Client) -> None:
    raw = b'{"max_tokens":9, "model":"claude-haiku-5-5","messages": [ {"role":"user","content":"\\u00fc"} ] }'
    headers = KEY | {"x-claude-code-session-id": "s-1", "content-type": "application/json"}
    async with client.post("/v1/messages", data=raw, headers=headers) as answer:
        assert answer.status == 200
    [line] = await bill(client)
    assert line["body_digest"] == body_digest(b'[ {"role":"user","content":"\\u00fc"} ]').hex()
    assert line["body_sha256"] == hashlib.sha256(raw).hexdigest()
    assert line["session_id"] == "s-1"


async def test_the_bill_is_written_before_the_stream_ends(client: Client, tmp_path: Path) -> None:
    async with post(client, "chunk_ms=5;chunks=3", stream=True) as answer:
        async for row in answer.content:
            if b"message_stop" in row:
                assert (tmp_path / "bill.jsonl").read_bytes().count(b"\n") == 1
                break


async def test_a_client_that_hangs_up_stops_the_generation_and_pays_for_what_was_made(client: Client) -> None:
    async with post(client, "output_tokens=1000;chunks=100;chunk_ms=20;input_tokens=10", stream=True) as answer:
        await answer.content.readuntil(b"text_delta")
        answer.close()
    [line] = await billed(client, 1)
    assert line["outcome"] == "client_gone"
    assert 0 < line["generated_output_tokens"] < 500
    assert line["cost_nano_usd"] == 10 * 2_000 + line["generated_output_tokens"] * 10_000
    assert line["usage"]["output_tokens"] == line["generated_output_tokens"]


@pytest.mark.alone
async def test_a_client_that_hangs_up_on_a_whole_answer_pays_for_what_was_made(client: Client) -> None:
    wish = "output_tokens=1000;chunks=100;chunk_ms=20;input_tokens=10"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), post(client, wish):
            pass
    [line] = await billed(client, 1)
    assert line["outcome"] == "client_gone" and line["stream"] is False
    assert 0 < line["generated_output_tokens"] < 500


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
async def test_every_error_status_has_its_shape_and_costs_nothing(client: Client, status: int, kind: str) -> None:
    async with post(client, f"status={status};retry_after=3;should_retry=false", stream=True) as answer:
        told = await answer.json()
        assert (answer.status, told["error"]["type"]) == (status, kind)
        assert told["request_id"] == answer.headers["request-id"]
        assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("3", "false")
    [line] = await bill(client)
    assert (line["outcome"], line["status"], line["cost_nano_usd"], line["error_type"]) == ("refused", status, 0, kind)


async def test_a_bad_gateway_answers_html(client: Client) -> None:
    async with post(client, "html") as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")


async def test_without_a_credential_or_with_a_broken_body_there_is_an_error_and_a_line(client: Client) -> None:
    async with client.post("/v1/messages", data=b"{}") as answer:
        assert answer.status == 401
    async with client.post("/v1/messages", data=b"{", headers={"authorization": "Bearer k"}) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (400, "invalid_request_error")
    async with post(client, "stauts=500") as answer:
        assert answer.status == 400 and "stauts" in (await answer.json())["error"]["message"]
    assert [line["cost_nano_usd"] for line in await bill(client)] == [0, 0, 0]


@pytest.mark.parametrize("where", ["before_headers", "after_headers", "in_block", "after_block", "before_stop", "900"])
async def test_a_reset_breaks_the_connection_and_bills_from_the_first_event_on(client: Client, where: str) -> None:
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        async with post(client, f"reset={where};output_tokens=100", stream=True) as answer:
            await answer.read()
    [line] = await billed(client, 1)
    assert line["outcome"] == "reset"
    assert (line["cost_nano_usd"] > 0) == (where not in ("before_headers", "after_headers"))


async def test_an_error_event_bills_what_was_made_and_is_a_status_without_streaming(client: Client) -> None:
    async with post(client, "error_event=in_block;output_tokens=100", stream=True) as answer:
        assert (await answer.read()).splitlines()[-3] == b"event: error"
    async with post(client, "error_event=in_block") as answer:
        assert answer.status == 529
    streamed, whole = await bill(client)
    assert streamed["outcome"] == "error_event" and 0 < streamed["generated_output_tokens"] < 100
    assert (whole["outcome"], whole["cost_nano_usd"]) == ("refused", 0)


async def test_a_fault_with_times_strikes_only_the_first_posts(client: Client) -> None:
    statuses = []
    for _ in range(3):
        async with post(client, "status=529;times=2") as answer:
            statuses.append(answer.status)
    assert statuses == [529, 529, 200]


async def test_late_headers_and_silence_take_their_time(client: Client) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with post(client, "late_headers=0.2;slow=0.2;pings=0.05", stream=True) as answer:
        assert loop.time() - began >= 0.19  # the loop may wake a moment early
        assert (await answer.read()).count(b"event: ping") == 4
    assert loop.time() - began >= 0.38


async def test_usage_and_known_events_can_be_missing(client: Client) -> None:
    async with post(client, "no_usage;unknown_event", stream=True) as answer:
        body = await answer.read()
    assert b"usage" not in body and b"event: simulator_novelty" in body
    assert (await bill(client))[0]["cost_nano_usd"] > 0


async def test_the_bill_survives_a_restart_and_goes_on(tmp_path: Path) -> None:
    for count in (1, 2):
        async with TestClient(TestServer(build_app(Settings(data_dir=str(tmp_path))))) as client:
            async with post(client, "output_tokens=100;input_tokens=0"):
                pass
            async with client.get("/bill") as answer:
                totals = await answer.json()
            assert (totals["count"], totals["cost_nano_usd"]) == (count, count * 1_000_000)
            assert totals["by_model"] == {"claude-sonnet-5-5": count * 1_000_000}
            async with client.get(f"/bill/lines?after={count - 1}") as answer:
                page = await answer.json()
            assert (len(page["items"]), page["next"]) == (1, count)


async def test_probes_need_no_credential_and_unknown_paths_are_not_found(client: Client) -> None:
    for path in ("/", "/api/hello"):
        async with client.head(path) as answer:
            assert answer.status == 200
    async with client.get("/v1/files", headers=KEY) as answer:
        assert (answer.status, (await answer.json())["error"]["type"]) == (404, "not_found_error")


async def test_the_sdk_streams_text_and_thinking(sdk: anthropic.AsyncAnthropic, client: Client) -> None:
    async with sdk.messages.stream(
        model="claude-opus-5-5",
        max_tokens=500,
        messages=[{"role": "user", "content": "hello [[sim: thinking=12; output_tokens=60; cache_1h=40]]"}],
    ) as stream:
        text = "".join([part async for part in stream.text_stream])
        message = await stream.get_final_message()
    assert text.startswith("Hello") and message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 60
    assert message.usage.output_tokens_details and message.usage.output_tokens_details.thinking_tokens == 12
    assert message.usage.cache_creation and message.usage.cache_creation.ephemeral_1h_input_tokens == 40
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (await bill(client))[0]["cost_nano_usd"] == 60 * 20_000 + 40 * 8_000


async def test_the_sdk_uses_a_tool_and_comes_to_an_end(sdk: anthropic.AsyncAnthropic) -> None:
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Use a tool: how warm is it?"}]
    tools: list[anthropic.types.ToolParam] = [
        {
            "name": "warmth",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ]
    async with sdk.messages.stream(model="claude-opus-5-5", max_tokens=500, messages=messages, tools=tools) as stream:
        first = await stream.get_final_message()
    call = first.content[-1]
    assert first.stop_reason == "tool_use" and isinstance(call, anthropic.types.ToolUseBlock)
    assert call.input == {"city": "Simulated city"}
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "20"}]},
    ]
    last = await sdk.messages.create(model="claude-opus-5-5", max_tokens=500, messages=messages, tools=tools)
    assert last.stop_reason == "end_turn"


async def test_the_sdk_counts_tokens_as_a_message_would_and_lists_models(sdk: anthropic.AsyncAnthropic) -> None:
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": "word " * 100}]
    counted = await sdk.messages.count_tokens(model="claude-opus-5-5", messages=messages)
    message = await sdk.messages.create(model="claude-opus-5-5", max_tokens=50, messages=messages)
    assert counted.input_tokens == message.usage.input_tokens > 100
    models = [model.id async for model in sdk.models.list(limit=2)]
    assert "claude-opus-5-5" in models and len(models) == len(set(models)) > 2
    assert (await sdk.models.retrieve("claude-opus-5-5")).display_name == "Claude Opus 5.5"


async def test_the_sdk_tells_the_errors_apart(sdk: anthropic.AsyncAnthropic) -> None:
    for status, kind in ((429, anthropic.RateLimitError), (400, anthropic.BadRequestError)):
        with pytest.raises(kind):
            await sdk.messages.create(
                model="claude-opus-5-5",
                max_tokens=50,
                messages=[{"role": "user", "content": "x"}],
                extra_headers={"x-simulator": f"status={status}"},
            )


async def test_simulated_traffic_leaves_one_line_per_request_each_with_its_own_digest(client: Client) -> None:
    seen: list[Done] = []
    target = Target(base_url=str(client.make_url("/")), keys=("one", "two"))

    def progress(done: Done, summary: Summary) -> None:
        assert summary.total == len(seen) + 1
        seen.append(done)

    found = await simulate(target, count=60, concurrency=20, seed=7, mix=dict.fromkeys(KINDS, 1), progress=progress)
    lines = await billed(client, 60)
    assert found.total == len(seen) == len(lines) == 60
    assert len({line["body_digest"] for line in lines}) == 60
    assert set(found.kinds) == set(KINDS)
    assert {"ok", "refused", "broken", "disconnected"} <= set(found.results)
    ids = {line["request_id"]: line for line in lines}
    for done in seen:
        if done.result == "ok":
            line = ids[done.request_id]
            assert line["outcome"] in ("complete", "clean_end")
            assert json.dumps(line["usage"]["output_tokens"]) == str(done.output_tokens)


async def test_the_load_counts_what_cannot_be_reached() -> None:
    found = await simulate(Target(base_url="http://127.0.0.1:1", keys=("k",)), count=2, concurrency=2)
    assert found.results == {"unreachable": 2}
