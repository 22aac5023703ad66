"""Client contract, items 14, 15, 25, 29, 31: what is charged and to whom, and that nothing of a prompt is kept."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.cli.conformance.checks.metering import DOLLARS_PER_MILLION
from tests.fixtures.contract import Gateway, installation, message, recorded, request, secret
from tests.fixtures.money import bill_lines
from tests.fixtures.upstream import CAPTURES, message_json, plain, says, stream
from tests.fixtures.wire import Answer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with installation(tmp_path_factory.mktemp("metering")) as running:
        yield running


async def booked(gateway: Gateway, answer: Answer) -> tuple[dict[str, Any], int]:
    """The ledger's entry for an answer, and what the provider billed for it in nano-USD."""
    assert answer.status == 200, answer.body
    row = await gateway.entry(answer)
    [line] = [line for line in bill_lines(gateway.up.bill) if line["request_id"] == row["upstream_request_id"]]
    return row, int(line["cost_nano_usd"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", DOLLARS_PER_MILLION)
async def test_each_class_of_tokens_costs_what_the_contract_s_table_says(
    gateway: Gateway, model: str, stream: bool
) -> None:
    counts = {"input_tokens": 1000, "output_tokens": 40, "cache_5m": 3000, "cache_1h": 4000, "cache_read": 2000}
    wish = ",".join(f"{name}={count}" for name, count in counts.items())
    row, billed = await booked(gateway, await gateway.simulate("dev", model, wish, model=model, stream=stream))
    prices = DOLLARS_PER_MILLION[model]
    expected = sum(count * price * 1000 for count, price in zip(counts.values(), prices, strict=True))
    assert row["cost_nano_usd"] == billed == round(expected)
    named = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read")
    assert [row[f"{name}_tokens"] for name in named] == list(counts.values())
    assert (row["estimated"], row["stream"]) == (False, stream)


SPECIAL = {
    "split of cache writes absent": (
        "claude-opus-5-5",
        "no_split,cache_5m=5000,input_tokens=10,output_tokens=0",
        5000 * 5000 + 10 * 4000,
    ),
    "above the band of Haiku": ("claude-haiku-5-5", "cache_read=100001,input_tokens=0,output_tokens=0", 100_001 * 50),
    "at the band of Haiku": ("claude-haiku-5-5", "cache_read=100000,input_tokens=0,output_tokens=0", 100_000 * 10),
    "fast": ("claude-opus-5-5", "speed=fast,input_tokens=1000,output_tokens=100", 1000 * 8000 + 100 * 40_000),
    "in the US": ("claude-opus-5-5", "geo=us,input_tokens=1000,output_tokens=100", 1100 * 4000 + 110 * 20_000),
    "searches": ("claude-opus-5-5", "searches=2,input_tokens=1000,output_tokens=100", 20_000_000 + 6_000_000),
    "another model": ("claude-opus-5-5", "model=claude-haiku-4-5,input_tokens=1000,output_tokens=100", 1_500_000),
    "a count that is repeated": (
        "claude-opus-5-5",
        "message_deltas=5,input_tokens=1000,output_tokens=100",
        1000 * 4000 + 100 * 20_000,
    ),
    "a compaction by another model": (
        "claude-opus-5-5",
        "iterations=compaction:claude-haiku-4-5:5000:100|message:1000:50",
        5000 * 1000 + 100 * 5000 + 1000 * 4000 + 50 * 20_000,
    ),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", SPECIAL)
async def test_what_changes_a_price_is_read_from_the_answer(gateway: Gateway, case: str, stream: bool) -> None:
    model, wish, expected = SPECIAL[case]
    row, billed = await booked(gateway, await gateway.simulate("dev", case, wish, model=model, stream=stream))
    assert row["cost_nano_usd"] == billed == expected
    assert not row["estimated"]
    if "model=" in wish:
        assert (row["request_model"], row["response_model"]) == ("claude-opus-5-5", "claude-haiku-4-5")


async def test_an_answer_without_usage_is_estimated(gateway: Gateway) -> None:
    for stream_ in (False, True):
        row, _ = await booked(gateway, await gateway.simulate("dev", "count", "no_usage", stream=stream_))
        assert row["estimated"]
        assert row["cost_nano_usd"] > 0


ATTRIBUTED = {
    "02-first-turn-197": ("main", "", "", "claude-cli/2.1.197"),
    "04-subagent-haiku-197": ("subagent", "agent", "", "claude-cli/2.1.197"),
    "05-title-request-197": ("auxiliary", "", "", "claude-cli/2.1.197"),
    "09-hint-headers-main-329": ("main", "", "prompt", "claude-cli/2.1.329"),
    "10-hint-headers-subagent-329": ("subagent", "agent", "prompt", "claude-cli/2.1.329"),
}
HEADERS = {"agent": "x-claude-code-agent-id", "prompt": "x-claude-code-prompt-id"}


@pytest.mark.parametrize("name", ATTRIBUTED)
async def test_a_recorded_request_is_attributed_to_its_session_agent_and_prompt(gateway: Gateway, name: str) -> None:
    recording = recorded(name)
    sse = (CAPTURES / f"{name}.sse").read_bytes()
    answer, _ = await gateway.sent_up(recording.bytes_for(secret("recorded")), says(stream(sse)))
    row, asked = await gateway.entry(answer), await gateway.request_row(answer)
    sent = {key.lower(): value for key, value in recording.headers}
    request_class, agent, prompt, version = ATTRIBUTED[name]
    expected = {
        "session_id": sent["x-claude-code-session-id"],
        "agent_id": sent[HEADERS[agent]] if agent else "",
        "prompt_id": sent[HEADERS[prompt]] if prompt else "",
        "request_class": request_class,
        "client_version": version,
        "owner": "recorded@acme.example",
        "team": "platform",
    }
    assert {column: row[column] for column in expected} == expected
    assert {column: asked[column] for column in expected} == expected


@pytest.mark.parametrize(
    "metadata",
    [{"user_id": "x"}, {"user_id": '{"session_id": 7}'}, {"user_id": None}, {"user_id": [1]}, {}, None, "text", [1], 7],
    ids=str,
)
async def test_metadata_of_any_shape_is_tolerated(gateway: Gateway, metadata: object) -> None:
    body = message("x", metadata=metadata)
    answer, sent = await gateway.sent_up(request("recorded", body), says(plain(message_json())))
    assert (answer.status, sent.body) == (200, body)


async def test_a_session_in_the_metadata_is_found(gateway: Gateway) -> None:
    user = json.dumps({"device_id": "0" * 64, "account_uuid": "", "session_id": "in-the-metadata"})
    answer = await gateway.post("dev", message("x", metadata={"user_id": user}))
    assert (await gateway.entry(answer))["session_id"] == "in-the-metadata"


async def test_no_word_of_a_prompt_an_answer_or_a_secret_is_kept(gateway: Gateway) -> None:
    """Looked for in every file of the data directory, after requests that end in each way."""
    words = ("xylophonequartz", "zephyrlantern")
    before = len(await gateway.requests())
    for key, wish in (("dev", ""), ("dev", "reset=in_block"), ("dev", "status=529"), ("haiku", ""), ("stranger", "")):
        asked = message(words[0], system=words[0], stream=True, metadata={"user_id": words[0]})
        await gateway.post(key, asked, ("x-simulator", f"text={words[1]},{wish}"))
    await gateway.post("dev", b'{"model": 7, "' + words[0].encode() + b'"')
    await gateway.requests(before + 6)
    forbidden = [word.encode() for word in (*words, secret("haiku"), secret("stranger"))]
    found = [str(path) for path, data in files(gateway.up.data_dir) if any(word in data for word in forbidden)]
    assert found == []
    assert not any(word in gateway.up.said() for word in words)


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file that can be read, and its content."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file():
                yield path, path.read_bytes()
