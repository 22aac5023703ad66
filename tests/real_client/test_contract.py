"""What both ends of the client's range make of the gateway's answers. One installation for all; sessions tell runs apart."""

import asyncio
import json
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.cli.conformance.sink import sink
from tests.fixtures.contract import CONTACT, COUNTED, TIGHT, Gateway, installation, message, request, secret
from tests.fixtures.money import bill_lines
from tests.fixtures.waiting import until
from tests.fixtures.wire import RawClient
from tests.real_client.claude import NEWEST, OLDEST, Turn, ask, command, environment, work_folder
from tests.real_client.terminal import Terminal, terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_OF_A_LINE = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with installation(tmp_path_factory.mktemp("contract")) as running:
        await running.spend("spent", 0.113)
        yield running


class Claude:
    """The client of one version with a home of its own."""

    def __init__(self, gateway: Gateway, version: str, home: Path) -> None:
        self.gateway, self.version, self.home = gateway, version, home

    async def ask(self, key: str, prompt: str, *more: str, **environ: str) -> Turn:
        base_url = self.gateway.up.base_url
        token = secret(key) if key else ""
        return await asyncio.to_thread(ask, self.version, self.home, base_url, token, prompt, *more, **environ)

    def terminal(self, key: str, **environ: str) -> AbstractAsyncContextManager[Terminal]:
        return terminal(self.version, self.home, self.gateway.up.base_url, secret(key), **environ)

    async def posts(self, turn: Turn, count: int = 1) -> list[dict[str, Any]]:
        """What the gateway wrote down about the posts of a run, in order, once there are `count` of them."""
        return await self.gateway.requests(count, session_id=turn.result["session_id"], operation="messages")

    async def entries(self, turn: Turn, count: int = 1) -> list[dict[str, Any]]:
        return await self.gateway.entries(count, session_id=turn.result["session_id"])

    def billed(self, turn: Turn) -> list[dict[str, Any]]:
        lines = bill_lines(self.gateway.up.bill)
        return [line for line in lines if line["session_id"] == turn.result["session_id"]]


@pytest.fixture
def claude(gateway: Gateway, version: str, home: Path) -> Claude:
    return Claude(gateway, version, home)


async def test_at_a_cap_a_fallback_model_is_not_tried(claude: Claude) -> None:
    turn = await claude.ask("spent", "Say hello", "--fallback-model", "claude-haiku-4-5-20251001")
    assert (turn.exit_code, turn.result["api_error_status"]) == (1, 429)
    assert "Budget exceeded: key 'spent'" in turn.text
    assert CONTACT in turn.text
    assert turn.seconds < 10
    [post] = await claude.posts(turn)
    assert (post["verdict"], post["status"], post["error_type"]) == ("refused", 429, "billing_error")
    assert claude.billed(turn) == []


async def test_a_stream_that_is_cut_at_the_cap_is_not_bought_again(claude: Claude) -> None:
    """The one case in which an answer ends early for money: the client stops, and its user reads why.

    It would cost 0.16 dollars and more of the 0.15, with all that the input's hold was too large.
    """
    key = TIGHT[(OLDEST, NEWEST).index(claude.version)]
    prompt = "[[sim: output_tokens=31000; chunks=200; chunk_ms=2]] Say a lot"
    turn = await claude.ask(key, prompt, "--model", "claude-haiku-4-5-20251001")
    assert turn.exit_code == 1
    for part in ("Budget exceeded", f"monthly budget of key '{key}'", CONTACT):
        assert part in turn.text, turn.text
    [post] = await claude.posts(turn)
    assert (post["verdict"], post["outcome"]) == ("admitted", "cut")
    [billed] = claude.billed(turn)
    assert 0.05e9 < billed["cost_nano_usd"] <= 0.15e9


async def test_a_first_prompt_above_what_is_left_by_its_bound_is_let_in_by_its_count(claude: Claude) -> None:
    """49 or 76 kB: held as 0.6 tokens a byte, with 4,096 of output, it would need 0.29 or 0.39 dollars of the 0.25."""
    key = COUNTED[(OLDEST, NEWEST).index(claude.version)]
    turn = await claude.ask(key, "Say hello", "--model", "claude-opus-4-8")
    assert turn.exit_code == 0, turn.text
    [post] = await claude.posts(turn)
    assert (post["verdict"], post["attempt_count"]) == ("admitted", 1)
    [entry] = await claude.entries(turn)
    assert entry["held_nano_usd"] <= 0.25e9


async def test_a_key_as_api_key_or_from_a_helper_enters(claude: Claude) -> None:
    """Three ways to give it: the helper's output goes out in both headers."""
    by_key = await claude.ask("", "Say hello", ANTHROPIC_API_KEY=secret("dev"))
    assert by_key.exit_code == 0, by_key.result
    helper = json.dumps({"apiKeyHelper": f"echo {secret('dev')}"})
    by_helper = await claude.ask("", "Say hello", "--settings", helper)
    assert by_helper.exit_code == 0, by_helper.result
    both = await claude.ask("dev", "Say hello", ANTHROPIC_API_KEY=secret("dev"))
    assert both.exit_code == 0, both.result


@pytest.mark.parametrize("how", ["error_event=in_block", "reset=in_block"])
async def test_a_stream_that_dies_is_repeated_whole_and_both_are_paid_for(claude: Claude, how: str) -> None:
    """Through the gateway a reset is an honest error, which costs the newest client one repeat instead of eleven."""
    turn = await claude.ask("dev", f"[[sim: {how}; output_tokens=100; times=1]] Say hello")
    assert turn.exit_code == 0, turn.result
    entries = await claude.entries(turn, 2)
    assert [entry["stream"] for entry in entries] == [True, False]
    assert len({(entry["session_id"], entry["body_digest"]) for entry in entries}) == 1
    assert [post["repeat"] for post in await claude.posts(turn, 2)] == [False, True]
    exact = [entry for entry in entries if not entry["estimated"]]
    billed = {line["request_id"]: line["cost_nano_usd"] for line in claude.billed(turn)}
    assert len(billed) == 2
    assert all(entry["cost_nano_usd"] > 0 for entry in entries)
    assert all(entry["cost_nano_usd"] == billed[entry["upstream_request_id"]] for entry in exact)


async def test_a_denied_model_names_the_others_and_costs_nothing(claude: Claude) -> None:
    turn = await claude.ask("haiku", "Say hello", "--model", "claude-opus-4-8")
    assert (turn.exit_code, turn.result["api_error_status"]) == (1, 400)
    assert "claude-haiku-*" in turn.text
    assert turn.seconds < 10
    posts = await claude.posts(turn, {OLDEST: 1, NEWEST: 6}[claude.version])
    assert len(posts) <= 6
    assert {(post["verdict"], post["attempt_count"]) for post in posts} == {("rejected", 0)}
    assert claude.billed(turn) == []


async def test_a_busy_budget_is_waited_for_by_the_client_alone(claude: Claude) -> None:
    hold = request("busy", message("hold", max_tokens=45_000), [("x-simulator", "late_headers=3,output_tokens=1")])
    async with RawClient(claude.gateway.port) as holder:
        holder.send(hold)
        await claude.gateway.balance("busy", "held_nano_usd")
        turn = await claude.ask("busy", "Say hello", "--model", "claude-haiku-4-5-20251001")
    assert turn.exit_code == 0, turn.result
    retries = [line for line in turn.lines if line.get("subtype") == "api_retry"]
    assert retries
    *waited, admitted = await claude.posts(turn, len(retries) + 1)
    assert [(post["status"], post["error_type"]) for post in waited] == [(429, "rate_limit_error")] * len(retries)
    assert admitted["status"] == 200


async def test_a_storm_of_retries_is_one_request(claude: Claude) -> None:
    turn = await claude.ask("dev", "[[sim: status=429; retry_after=1]] Say hello", CLAUDE_CODE_MAX_RETRIES="2")
    assert (turn.exit_code, turn.result["api_error_status"]) == (1, 429)
    posts = await claude.posts(turn, 3)
    assert [post["repeat"] for post in posts] == [False, True, True]
    gaps = [(after["ts"] - before["ts"]).total_seconds() for before, after in pairwise(posts)]
    assert min(gaps) >= 1


async def test_discovery_lists_what_the_key_may_use(claude: Claude) -> None:
    turn = await claude.ask(
        "haiku",
        "Say hello",
        "--model",
        "claude-haiku-4-5-20251001",
        CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="",
    )
    assert turn.exit_code == 0, turn.result
    found = await until(lambda: [path for path in claude.home.rglob("*") if _lists_models(path)])
    listed = found[0].read_text()
    assert "claude-haiku-5-5" in listed
    assert "claude-opus" not in listed


def _lists_models(path: Path) -> bool:
    return path.is_file() and "gateway" in path.name and "claude-haiku" in path.read_text(errors="replace")


async def test_hint_headers_group_the_requests_of_a_prompt(claude: Claude) -> None:
    turn = await claude.ask("dev", "Write a file then read it", CLAUDE_CODE_GATEWAY_HINT_HEADERS="1")
    assert turn.exit_code == 0, turn.result
    entries = await claude.entries(turn, 4)
    assert {entry["request_class"] for entry in entries} == {"main"}
    prompts = {entry["prompt_id"] for entry in entries}
    assert len(prompts) == 1
    assert all(prompts) == (claude.version == NEWEST), "the older client has no such headers"


async def test_a_subagent_is_told_apart_within_its_session(claude: Claude) -> None:
    turn = await claude.ask("dev", "Start a subagent to look around", "--allowedTools", "Agent,Task,Bash,Read,Write")
    assert turn.exit_code == 0, turn.result
    await until(lambda: any(line["agent_id"] for line in claude.billed(turn)))
    entries = await claude.entries(turn, len(claude.billed(turn)))
    classes = {entry["request_class"]: entry["agent_id"] for entry in entries}
    assert set(classes) == {"main", "subagent"}
    assert classes["main"] == ""
    assert classes["subagent"]


async def test_a_subscription_login_is_refused_at_once_with_a_reason(claude: Claude) -> None:
    before = bill_lines(claude.gateway.up.bill)
    known = len(await claude.gateway.requests(0, status=401))
    turn = await claude.ask("", "Say hello", CLAUDE_CODE_OAUTH_TOKEN="dummy")
    assert (turn.exit_code, turn.result["api_error_status"]) == (1, 401)
    assert "subscription" in turn.text
    assert turn.seconds < 10
    posts = len(await claude.gateway.requests(known + 1, status=401)) - known
    assert posts <= 2, "it looks once whether somebody has renewed its token"
    assert bill_lines(claude.gateway.up.bill) == before


async def test_context_is_counted_free_while_the_budget_is_spent(claude: Claude) -> None:
    turn = await claude.ask("spent", "/context")
    assert turn.exit_code == 0, turn.result
    assert claude.billed(turn) == []
    counts = await claude.gateway.requests(10, session_id=turn.result["session_id"])
    assert {(row["operation"], row["verdict"], row["status"]) for row in counts} == {("count_tokens", "free", 200)}


async def _begins(told: asyncio.StreamReader) -> bool:
    line = await asyncio.wait_for(told.readline(), 60)
    assert line, "it ended before it was answered"
    return b"content_block_delta" in line


async def test_an_interrupted_client_pays_for_what_was_made(claude: Claude) -> None:
    before = len(bill_lines(claude.gateway.up.bill))
    prompt = f"[[sim: chunks=100; chunk_ms=50; output_tokens=1000]] Interrupt me, {claude.version}"
    process = await asyncio.create_subprocess_exec(
        *command(claude.version, prompt, "--include-partial-messages"),
        env=environment(claude.home, claude.gateway.up.base_url, secret("dev")),
        cwd=work_folder(claude.home), stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, limit=MOST_OF_A_LINE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        await until(partial(_begins, process.stdout), 60, "the first words of the answer")
    finally:
        process.send_signal(signal.SIGINT)
        await process.communicate()
    [billed] = await until(lambda: bill_lines(claude.gateway.up.bill)[before:])
    assert billed["outcome"] == "client_gone"
    [entry] = await claude.gateway.entries(upstream_request_id=billed["request_id"])
    assert (entry["outcome"], entry["estimated"]) == ("client_gone", True)
    assert entry["cost_nano_usd"] > 0


async def test_the_client_s_telemetry_joins_the_ledger_by_request_id(claude: Claude) -> None:
    async with sink() as (endpoint, bodies):
        turn = await claude.ask(
            "dev",
            "Write a file then read it",
            CLAUDE_CODE_ENABLE_TELEMETRY="1",
            DISABLE_TELEMETRY="",
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        )
    assert turn.exit_code == 0, turn.result
    exported = b"".join(bodies).decode()
    told = {part.partition('"')[0] for part in exported.split('{"key":"request_id","value":{"stringValue":"')[1:]}
    entries = await claude.entries(turn, 4)
    assert len(told) == 4
    assert told == {entry["upstream_request_id"] for entry in entries}


async def test_a_developer_reads_our_sentence_and_no_title_loops(claude: Claude) -> None:
    """A session's title is asked for beside the first turn; refused like it, it is not asked for again and again."""
    known = len(await claude.gateway.requests(0, key="spent", status=429))
    async with claude.terminal("spent", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="") as screen:
        await screen.say("Say hello")
        await screen.shows("(429) · Budget exceeded: key 'spent' has used $0.1132 of its $0.10 monthly budget")
        await screen.shows(f"Ask {CONTACT} for an increase.")
        await asyncio.sleep(2)  # a loop would go on
    classes = [post["request_class"] for post in await claude.gateway.requests(known + 1, key="spent", status=429)]
    assert sorted(classes[known:]) in (["main"], ["auxiliary", "main"])


async def test_a_warning_is_shown_where_the_client_knows_our_headers(gateway: Gateway, home: Path) -> None:
    """As a session that is signed in to a gateway sees it. The share is of what is spent, without what is held."""
    await gateway.spend("warned", 7.81)
    async with Claude(gateway, NEWEST, home).terminal("warned", CLAUDE_CODE_USE_GATEWAY="1") as screen:
        await screen.say("[[sim: input_tokens=1; output_tokens=1]] Say hello")
        await screen.shows("You've used 78% of your usage credits")


PRICED = {
    OLDEST: ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5-20251001"),
    NEWEST: ("claude-fable-5-2", "claude-opus-5-5", "claude-opus-4-8", "claude-sonnet-5-5", "claude-haiku-5-5"),
}


async def test_the_client_s_own_sum_is_the_ledger_s(claude: Claude) -> None:
    """All classes of input, for models that both know; the last one in both bands of its price."""
    few = "input_tokens=1001; cache_read=2003; cache_5m=3007; cache_1h=4001; output_tokens=107"
    many = "input_tokens=1001; cache_read=120003; cache_5m=3007; output_tokens=107"
    for model in PRICED[claude.version]:
        for usage in (few, many):
            turn = await claude.ask("dev", f"[[sim: {usage}]] Say hello", "--model", model)
            assert turn.exit_code == 0, turn.result
            [entry] = await claude.entries(turn)
            assert turn.result["total_cost_usd"] == pytest.approx(entry["list_nano_usd"] / 1e9, abs=1e-9), (
                model,
                usage,
            )
