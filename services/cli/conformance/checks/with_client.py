"""Items 1, 2, 8, 14, 16, 18–20, 29, 35 with the real client: turns that end well, and what the ledger makes of them.

Directives in a prompt say what the played provider answers, so that several runs can go on at a time.
"""

import asyncio
import json
import os
import signal
import tempfile
from pathlib import Path
from uuid import uuid4

from services.cli.conformance.checklist import client_check
from services.cli.conformance.checks.runs import arrived, ended_well
from services.cli.conformance.claude import SINK_PORT, Claude, command, environment, work_folder
from services.cli.conformance.recordings import known_vocabulary
from services.cli.conformance.relay import Said
from services.cli.conformance.results import Broken, expect
from services.cli.conformance.scene import Scene, until
from services.cli.conformance.sink import sink

LOOK = "Write a file then read it"

OLDER = ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5-20251001")
NEWER = ("claude-fable-5-2", "claude-opus-5-5", "claude-opus-4-8", "claude-sonnet-5-5", "claude-haiku-5-5")
"""Models whose price the client knows as we do: before this version, and from it on."""
KNOWS_NEWER = (2, 1, 329)

TAKES_PINGS = (2, 1, 329)
"""2.1.197 gives up after 300 s without content whatever pings come, also without a gateway. Releases between: not known."""


@client_check(1, "provider")
async def a_turn_with_tools_ends_well(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask(scene.keys.main, LOOK)
    ended_well(turn)
    expect(len(turn.posts) == 4, f"it posts {len(turn.posts)} times instead of 4")
    came = arrived(scene, turn.session)
    expect(came == 4, f"{came} of its 4 posts reached the provider")
    return "a turn with three tools: exit code 0, 4 posts upstream"


@client_check(2, "provider")
async def token_key_and_helper_enter(scene: Scene, claude: Claude) -> str:
    key = scene.keys.main
    ended_well(await claude.ask("", "Say hello", ANTHROPIC_API_KEY=key), "with ANTHROPIC_API_KEY it")
    helper = await claude.ask("", "Say hello", "--settings", json.dumps({"apiKeyHelper": f"echo {key}"}))
    ended_well(helper, "with apiKeyHelper it")
    ended_well(await claude.ask(key, "Say hello", ANTHROPIC_API_KEY=key), "with both it")
    return "ANTHROPIC_AUTH_TOKEN, ANTHROPIC_API_KEY, both, apiKeyHelper"


@client_check(8, "provider")
async def a_stream_that_dies_is_repeated_whole(scene: Scene, claude: Claude) -> str:
    for how in ("error_event=in_block", "reset=in_block"):
        turn = await claude.ask(scene.keys.main, f"[[sim: {how}; output_tokens=100; times=1]] Say hello")
        ended_well(turn, how)
        flags = [bool(isinstance(post.body, dict) and post.body.get("stream")) for post in turn.posts]
        expect(flags == [True, False], f"{how}: posts with stream {flags}")
    return "a stream that dies ends well by one repeat that is not streamed"


@client_check(14, "provider", "books")
async def the_client_s_own_sum_is_the_ledger_s(scene: Scene, claude: Claude) -> str:
    models = NEWER if claude.numbers >= KNOWS_NEWER else OLDER
    counts = "input_tokens=1001; cache_read=2003; cache_5m=3007; cache_1h=4001; output_tokens=107"

    async def one(model: str) -> None:
        turn = await claude.ask(scene.keys.main, f"[[sim: {counts}]] Say hello", "--model", model)
        ended_well(turn, model)
        [entry] = await scene.books.of_session(turn.session, 1)
        ours, theirs = entry.list_nano_usd / 1e9, float(turn.result["total_cost_usd"])
        expect(abs(ours - theirs) < 1e-9, f"{model}: {ours} USD in the ledger, {theirs} by the client")

    for model in models:
        await one(model)
    return f"total_cost_usd is the ledger's for {', '.join(models)}"


@client_check(16, "provider", "books")
async def both_are_charged(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask(scene.keys.main, "[[sim: reset=in_block; output_tokens=100; times=1]] Say hello")
    ended_well(turn)
    entries = await scene.books.of_session(turn.session, 2)
    rows = [attempt for entry in entries for attempt in entry.attempts]
    expect(len(rows) == 2, f"{len(rows)} entries in the ledger instead of 2")
    expect(len({(row["session_id"], row["body_digest"]) for row in rows}) == 1, "not the same session and body hash")
    expect(all(row["cost_nano_usd"] > 0 for row in rows), "one of them is free")
    return "a broken stream and its repeat: 2 entries of one session and body hash"


@client_check(16, "provider", "books")
async def an_interrupted_run_is_charged(scene: Scene, claude: Claude) -> str:
    mark = f"interrupt {uuid4().hex}"
    prompt = f"[[sim: chunks=100; chunk_ms=50; output_tokens=1000]] {mark}"
    with tempfile.TemporaryDirectory(prefix="conformance-home-") as folder:
        home, key = Path(folder), scene.keys.main
        given = environment(home, claude.base_url, key)
        async with claude.started(command(claude.binary, prompt), given, work_folder(home)) as (process, asked):
            await until(lambda: any(mark.encode() in each.body for each in scene.provider.requests), 20)
            await asyncio.sleep(0.5)  # into the stream
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: for the whole group
            await process.communicate()
    session = posts_of(asked)[0].header("x-claude-code-session-id")
    [entry] = await scene.books.of_session(session, 1)
    expect(entry.cost_nano_usd > 0, "an interrupted answer is free")
    return f"an interrupted answer: {entry.cost_nano_usd / 1e9:.6f} USD, {entry.attempts[0]['outcome']}"


def posts_of(asked: list[Said]) -> list[Said]:
    found = [each for each in asked if each.method == "POST"]
    expect(found, "it has posted nothing")
    return found


@client_check(18, "provider", "books")
async def its_telemetry_joins_the_ledger(scene: Scene, claude: Claude) -> str:
    async with sink() as (url, bodies):
        turn = await claude.ask(
            scene.keys.main,
            LOOK,
            sink=url,
            CLAUDE_CODE_ENABLE_TELEMETRY="1",
            DISABLE_TELEMETRY="",
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{SINK_PORT}",
        )
    ended_well(turn)
    exported = b"".join(bodies).decode()
    told = {part.partition('"')[0] for part in exported.split('{"key":"request_id","value":{"stringValue":"')[1:]}
    entries = await scene.books.of_session(turn.session, 4)
    known = {attempt["upstream_request_id"] for entry in entries for attempt in entry.attempts}
    known |= {entry.decision["request_id"] for entry in entries}
    expect(len(told) >= 4, f"its telemetry tells {len(told)} request ids")
    expect(told <= known, f"not in the ledger: {', '.join(sorted(told - known))}")
    return f"{len(told)} api_request.request_id of its telemetry, all in the ledger"


@client_check(19, "provider", "patience")
async def it_waits_through_a_silence(scene: Scene, claude: Claude) -> str:
    seconds = 310 if claude.numbers >= TAKES_PINGS else 280
    if scene.facts.heartbeat_seconds < 1:
        seconds = 4
    ended_well(await claude.ask(scene.keys.main, f"[[sim: slow={seconds}]] Say hello"), f"{seconds} s of silence")
    return f"a stream that is silent for {seconds} s ends well"


@client_check(20, "provider")
async def a_stream_that_ends_early_is_no_silent_success(scene: Scene, claude: Claude) -> str:
    found = list[str]()
    for how in ("clean_end=after_start", "clean_end=no_delta"):
        turn = await claude.ask(scene.keys.main, f"[[sim: {how}; output_tokens=60; times=1]] Say hello")
        expect(len(turn.posts) <= 4, f"{how}: {len(turn.posts)} posts")
        found.append(f"{how}: {len(turn.posts)} posts, exit code {turn.exit_code}")
    return "; ".join(found)


@client_check(29, "provider", "books")
async def prompts_and_subagents_are_told_apart(scene: Scene, claude: Claude) -> str:
    tools = ("--allowedTools", "Agent,Task,Bash,Read,Write")
    turn = await claude.ask(
        scene.keys.main, "Start a subagent to look around", *tools, CLAUDE_CODE_GATEWAY_HINT_HEADERS="1"
    )
    ended_well(turn)
    entries = await scene.books.of_session(turn.session, len(turn.posts))
    rows = [attempt for entry in entries for attempt in entry.attempts]
    classes = {row["request_class"]: row["agent_id"] for row in rows}
    expect(set(classes) == {"main", "subagent"}, f"request classes {sorted(classes)}")
    expect(classes["subagent"] and not classes["main"], "the subagent has no id of its own")
    prompts = {row["prompt_id"] for row in rows}
    said = {post.header("x-claude-code-prompt-id") for post in turn.posts}
    expect(prompts == said, f"prompts {prompts} in the ledger, {said} sent")
    hint = "with its prompt ids" if all(said) else "without prompt ids, which it does not send"
    return f"{len(rows)} requests of a turn with a subagent, {hint}"


@client_check(35, "provider", last=True)
async def its_words_are_known(scene: Scene, claude: Claude) -> str:
    """A run of its own, so that `--only 35` hears something; all runs of this version before it count too."""
    turn = await claude.ask(scene.keys.main, LOOK, CLAUDE_CODE_GATEWAY_HINT_HEADERS="1")
    ended_well(turn)
    heard, new = claude.heard, claude.heard.beyond(known_vocabulary())
    if new.empty:
        return f"{len(heard.betas)} betas, {len(heard.body_keys)} body keys, {len(heard.headers)} headers: all known"
    parts = {"betas": new.betas, "body keys": new.body_keys, "headers": new.headers}
    raise Broken(
        "new to us: " + "; ".join(f"{name} {', '.join(sorted(found))}" for name, found in parts.items() if found)
    )
