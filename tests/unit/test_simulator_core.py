"""The simulator's decisions: directives, scripts, streams, faults, tokens and the price of what was made."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.simulator import stores
from services.simulator.core import ask as asks
from services.simulator.core import bill, directives, errors, faults, frames, tokens, usage
from services.simulator.core.answer import Answer, Pace, answer, fit
from services.simulator.core.ask import Ask, Malformed
from services.simulator.core.bursts import Sent, bursts
from services.simulator.core.directives import Directives, UnknownDirective
from services.simulator.core.frames import Frame
from services.simulator.core.script import example, script
from services.simulator.core.usage import Account, Usage
from shared.clock import parse
from shared.digest import body_digest

BOOK = stores.price_book()
NOW = parse("2026-11-21T12:00:00Z")
RID = "req_0123456789abcdef01234567"
BASH = {"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}
WRITE = {"name": "Write", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}}}
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}}}


def ask_of(sim: str = "", prompt: object = "hello", headers: dict[str, str] | None = None, **body: Any) -> Ask:
    whole = {"model": "claude-sonnet-5-5", "max_tokens": 100_000, "messages": [{"role": "user", "content": prompt}]}
    return asks.read(json.dumps(whole | body).encode(), {"x-simulator": sim} | (headers or {}))


def answer_of(ask: Ask, known: frozenset[bytes] = frozenset()) -> Answer:
    split = tokens.split(tokens.prefixes(ask), known)

    def price(lines: tuple[Any, ...]) -> int:
        return bill.nano_usd(lines, BOOK, NOW)

    return answer(ask, split, RID, price, lambda model: bill.sold_fast(BOOK, model, NOW), Pace())


def events(line: tuple[Frame, ...]) -> list[dict[str, Any]]:
    return [json.loads(frame.data.split(b"\ndata: ")[1]) for frame in line]


def merged(line: tuple[Frame, ...]) -> dict[str, Any]:
    """The usage as a gateway must read it: the last message_delta over message_start."""
    found: dict[str, Any] = {}
    for event in events(line):
        if event["type"] == "message_start":
            found |= event["message"]["usage"]
        if event["type"] == "message_delta":
            found |= event["usage"]
    return found


# Directives


def test_the_header_wins_over_the_text_and_the_text_over_the_model_name() -> None:
    ask = ask_of(
        "chunks=3", "go on [[sim: chunks=2; ttft_ms=7]]", model="claude-opus-5-5+chunks=1+ttft_ms=1+thinking=5"
    )
    assert (ask.model, ask.wish.chunks, ask.wish.ttft_ms, ask.wish.thinking) == ("claude-opus-5-5", 3, 7, 5)


@pytest.mark.parametrize("wish", ["stauts=400", "status=200", "output_tokens=-1", "reset=somewhere", "error_event=x"])
def test_a_misspelt_directive_is_refused_by_name(wish: str) -> None:
    with pytest.raises(UnknownDirective):
        ask_of(wish)


def test_a_tool_input_may_hold_commas_brackets_and_quotes() -> None:
    ask = ask_of("", 'please [[sim: tool=get{"a": [1, [2]], "b": "x;]y"}, chunks=2]] thanks')
    tool = script(ask).tool
    assert tool and tool.name == "get" and json.loads(tool.input) == {"a": [1, [2]], "b": "x;]y"}
    assert ask.wish.chunks == 2


def test_a_reminder_of_the_client_hides_no_directive_and_tool_results_count_from_it() -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "[[sim: tool=Bash|Read]]"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "/home/dev\nhello"},
                {"type": "text", "text": "<system-reminder>be good</system-reminder>"},
            ],
        },
    ]
    said = script(ask_of(messages=turns, tools=[BASH, READ]))
    assert said.tool and said.tool.name == "Read"
    assert json.loads(said.tool.input)["file_path"].startswith("/home/dev/")


def test_the_digest_is_of_the_messages_as_sent() -> None:
    messages = b'[ {"role":"user",  "content":"\\u00e4"} ]'
    ask = asks.read(b'{"model":"m","max_tokens":1,"messages" :  ' + messages + b' ,"x":1}', {})
    assert ask.messages_digest == body_digest(messages).hex()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"model":"m","max_tokens":1,"messages":[]}', b'{"model":"m"}', b"\xff"])
def test_a_body_that_is_no_request_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        asks.read(body, {})


# Scripts


def test_write_a_file_then_read_it_takes_three_tools_and_then_a_text() -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Write a file then read it"}]
    names = []
    for _ in range(4):
        reply = answer_of(ask_of(messages=turns, tools=[READ, BASH, WRITE]))
        tool = reply.message.tool
        names.append(tool.name if tool else reply.message.stop_reason)
        if tool:
            turns.append({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": tool.name}]})
            turns.append({"role": "user", "content": [{"type": "tool_result", "content": "/tmp\nok"}]})  # noqa: S108  # what a tool printed
    assert names == ["Bash", "Write", "Read", "end_turn"]


def test_a_greeting_uses_no_tool() -> None:
    assert answer_of(ask_of(prompt="hello", tools=[BASH])).message.stop_reason == "end_turn"


def test_a_forced_tool_is_called_with_an_input_of_its_schema() -> None:
    shape = {"type": "object", "properties": {"n": {"type": "integer"}, "u": {"enum": ["C", "F"]}}, "required": ["u"]}
    tools = [{"name": "weather", "input_schema": shape}]
    said = script(ask_of(tools=tools, tool_choice={"type": "tool", "name": "weather"}))
    assert said.tool and json.loads(said.tool.input) == {"u": "C"}


def test_a_title_request_gets_json_of_its_schema_and_ignores_the_quoted_directive() -> None:
    shape = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    config = {"format": {"type": "json_schema", "schema": shape}}
    ask = ask_of(prompt="name this: [[sim: status=429]]", tools=[], output_config=config)
    assert ask.wish.status is None
    assert json.loads(answer_of(ask).message.text) == {"title": "Simulated title"}


def test_a_search_sub_request_searches() -> None:
    reply = answer_of(ask_of(tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    assert merged(reply.course.frames)["server_tool_use"]["web_search_requests"] == 1


def test_a_schema_that_names_itself_has_an_example() -> None:
    shape: dict[str, Any] = {"type": "object", "required": ["next"]}
    shape["properties"] = {"next": shape}
    assert isinstance(example(shape), dict)


# Streams

WISHES = st.fixed_dictionaries(
    {},
    optional={
        "output_tokens": st.integers(0, 3_000),
        "thinking": st.integers(0, 500),
        "chunks": st.integers(1, 200),
        "message_deltas": st.integers(1, 3),
        "searches": st.integers(0, 2),
        "tool": st.sampled_from(["Bash", "Bash|Read", "other"]),
        "cache_5m": st.integers(0, 5_000),
        "cache_1h": st.integers(0, 5_000),
    },
)


@given(WISHES, st.integers(1, 2_000))
@settings(max_examples=60, deadline=None)
def test_every_stream_keeps_the_grammar_and_ends_with_the_usage_that_is_billed(
    wish: dict[str, Any], max_tokens: int
) -> None:
    ask = ask_of(";".join(f"{name}={value}" for name, value in wish.items()), max_tokens=max_tokens, tools=[BASH])
    reply = answer_of(ask)
    check_grammar(events(reply.course.frames))
    assert merged(reply.course.frames) == usage.final(reply.message.account)
    assert reply.message.account.whole.output_tokens <= max_tokens
    progress = [frame.made for frame in reply.course.frames]
    assert all(a <= b for a, b in pairwise(progress))
    assert progress[-1] == reply.message.account.whole.output_tokens
    body = json.loads(frames.whole(reply.message))
    assert body["usage"] == usage.final(reply.message.account)


def check_grammar(found: list[dict[str, Any]]) -> None:
    """Contract 2.6: start, blocks one after another, deltas, stop; pings anywhere."""
    kinds = [event["type"] for event in found if event["type"] != "ping"]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and kinds.count("message_stop") == 1
    open_block, index = False, 0
    for event in found:
        if event["type"] == "content_block_start":
            assert not open_block and event["index"] == index
            open_block = True
        elif event["type"] == "content_block_delta":
            assert open_block and event["index"] == index
        elif event["type"] == "content_block_stop":
            assert open_block and event["index"] == index
            open_block, index = False, index + 1
        elif event["type"] == "message_delta":
            assert not open_block
    assert not open_block


def test_two_hundred_events_are_one_write() -> None:
    line = answer_of(ask_of("chunks=200")).course.frames
    assert sum(frame.mark == "delta" for frame in line) == 200
    assert len(list(bursts(line))) == 1


def test_max_tokens_cuts_the_answer_and_leaves_a_half_tool_call_out() -> None:
    reply = answer_of(ask_of("tool=Bash", tools=[BASH], max_tokens=5))
    assert (reply.message.stop_reason, reply.message.tool) == ("max_tokens", None)
    assert reply.message.account.whole.output_tokens == 5


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 300), st.integers(1, 300))
def test_parts_always_sum_up_to_the_output(thinking: int, tool: int, output: int, limit: int) -> None:
    assert fit(thinking, tool, output, limit=limit).output == min(output, limit)


def test_hidden_thinking_tells_estimates_instead_of_text() -> None:
    line = events(answer_of(ask_of("thinking=90;thinking_hidden")).course.frames)
    deltas = [e["delta"] for e in line if e.get("delta", {}).get("type") == "thinking_delta"]
    assert sum(delta["estimated_tokens"] for delta in deltas) == 90
    assert all(delta["thinking"] == "" for delta in deltas)


# Faults


@pytest.mark.parametrize("where", ["before_start", "after_start", "in_block", "after_block", "before_stop"])
def test_an_error_event_is_the_last_and_bears_the_request_id(where: str) -> None:
    line = events(answer_of(ask_of(f"error_event={where};error_type=api_error;message=oh")).course.frames)
    assert line[-1] == {"type": "error", "error": {"type": "api_error", "message": "oh"}, "request_id": RID}
    kinds = [event["type"] for event in line]
    opened, closed = kinds.count("content_block_start"), kinds.count("content_block_stop")
    assert (len(line) == 1) == (where == "before_start")
    assert (opened - closed == 1) == (where == "in_block")


@pytest.mark.parametrize(
    ("how", "last"), [("after_start", "ping"), ("no_delta", "close"), ("no_stop", "message_delta")]
)
def test_a_clean_end_comes_where_it_is_asked_for(how: str, last: str) -> None:
    assert answer_of(ask_of(f"clean_end={how}")).course.frames[-1].mark == last


@given(st.integers(0, 4_000))
@settings(deadline=None)
def test_a_reset_after_n_bytes_sends_n_bytes(size: int) -> None:
    good = answer_of(ask_of()).course.frames
    cut = faults.course(good, Directives(reset=str(size)), RID).frames
    assert b"".join(f.data for f in cut) == b"".join(f.data for f in good)[:size]


def test_silence_is_filled_with_pings_where_asked() -> None:
    line = answer_of(ask_of("slow=3;pings=1")).course.frames
    assert sum(frame.wait_ms for frame in line) == 3_000
    assert sum(frame.mark == "ping" for frame in line) == 3
    assert sum(frame.wait_ms for frame in answer_of(ask_of("slow=3")).course.frames) == 3_000


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 429, 500, 504, 529])
def test_each_status_has_its_own_error_type(status: int) -> None:
    refusal = errors.wanted(Directives(status=status, retry_after=7, should_retry=False), RID)
    assert refusal and (refusal.status, refusal.headers["retry-after"]) == (status, "7")
    assert refusal.headers["x-should-retry"] == "false"
    told = json.loads(refusal.body)
    assert (told["type"], told["error"]["type"], told["request_id"]) == ("error", errors.TYPES[status], RID)


# Tokens and the prompt cache


def cached(texts: list[str], marks: dict[int, str]) -> Ask:
    blocks = [
        {"type": "text", "text": text}
        | ({"cache_control": {"type": "ephemeral", "ttl": marks[at]}} if at in marks else {})
        for at, text in enumerate(texts)
    ]
    return ask_of(prompt=blocks)


def test_a_prefix_is_written_first_and_read_when_its_marker_has_moved_on() -> None:
    first = cached(["a" * 400, "b" * 400], {1: "5m"})
    wrote = tokens.split(tokens.prefixes(first), frozenset())
    assert wrote.cache_5m > 0 and wrote.cache_read == 0
    known = frozenset(digest for digest, _ in wrote.kept)
    again = tokens.split(tokens.prefixes(cached(["a" * 400, "b" * 400, "c" * 400], {2: "1h"})), known)
    assert again.cache_read == wrote.cache_5m
    assert again.cache_1h > 0 and again.cache_5m == 0


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=6),
    st.dictionaries(st.integers(0, 5), st.sampled_from(["5m", "1h"])),
)
@settings(deadline=None)
def test_the_classes_of_input_always_sum_up_to_what_count_tokens_says(sizes: list[int], marks: dict[int, str]) -> None:
    line = tokens.prefixes(cached(["x" * size for size in sizes], marks))
    for known in (frozenset[bytes](), frozenset(prefix.digest for prefix in line[: len(line) // 2])):
        split = tokens.split(line, known)
        assert split.input_tokens + split.cache_read + split.cache_5m + split.cache_1h == tokens.total(line)


def test_the_attribution_line_of_the_client_neither_counts_nor_breaks_a_prefix() -> None:
    line = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197.361;"}
    rest = {"type": "text", "text": "be good"}
    assert tokens.prefixes(ask_of(system=[line, rest])) == tokens.prefixes(ask_of(system=[rest]))


def test_a_cache_entry_lapses_and_is_nobody_elses() -> None:
    ask = cached(["a" * 400], {0: "5m"})
    line, cache = tokens.prefixes(ask), stores.PromptCache()
    cache.keep("asha", tokens.split(line, frozenset()), NOW)
    assert cache.known("asha", line, NOW + 299_000_000)
    assert not cache.known("asha", line, NOW + 301_000_000)
    assert not cache.known("ben", line, NOW)


# Money


@given(
    st.sampled_from(["claude-opus-5-5", "claude-sonnet-4-5", "claude-haiku-5-5"]),
    st.integers(1_000_000, 900_000_000),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_a_wished_cost_is_never_passed_and_missed_by_less_than_a_token(model: str, nano: int, thinks: bool) -> None:
    dollars = f"{nano // 10**9}.{nano % 10**9:09d}"
    wish = f"cost_usd={dollars};input_tokens=1" + (";thinking=20" if thinks else "")
    account = answer_of(ask_of(wish, model=model, max_tokens=9_000_000)).message.account
    assert bill.cost(account, BOOK, NOW).nano_usd <= nano
    more = msgspec.structs.replace(account.whole, output_tokens=account.whole.output_tokens + 1)
    assert bill.cost(msgspec.structs.replace(account, whole=more), BOOK, NOW).nano_usd > nano


def test_the_bill_is_the_usage_at_list_price() -> None:
    whole = Usage(input_tokens=1_000, cache_5m=1_500, cache_1h=500, cache_read=30_000, output_tokens=500, searches=2)
    assert bill.cost(Account(whole=whole, model="claude-sonnet-4-5"), BOOK, NOW).nano_usd == 48_125_000


def test_thinking_is_billed_once_as_part_of_output() -> None:
    plain = Account(whole=Usage(output_tokens=100), model="claude-opus-5-5")
    thought = Account(whole=Usage(output_tokens=100, thinking=60), model="claude-opus-5-5")
    assert bill.cost(plain, BOOK, NOW).nano_usd == bill.cost(thought, BOOK, NOW).nano_usd == 2_000_000


def test_without_a_split_cache_writes_cost_as_five_minutes() -> None:
    account = answer_of(ask_of("cache_1h=1000;no_split;output_tokens=0")).message.account
    assert [(line.meter, line.quantity) for line in usage.lines(account)] == [("cache_write_5m", 1_000)]


def test_iterations_are_billed_each_at_its_own_model() -> None:
    wish = "iterations=1000:100|compaction:claude-haiku-4-5:1000:100"
    account = answer_of(ask_of(wish, model="claude-opus-4-6")).message.account
    assert account.whole.input_tokens == 1_000
    assert bill.cost(account, BOOK, NOW).nano_usd == 7_500_000 + 1_500_000


def test_only_a_model_that_is_sold_fast_runs_fast() -> None:
    assert answer_of(ask_of(model="claude-opus-4-8", speed="fast")).message.account.speed == "fast"
    assert answer_of(ask_of(model="claude-opus-4-5", speed="fast")).message.account.speed == "standard"


def test_a_broken_stream_is_billed_for_what_was_made() -> None:
    reply = answer_of(ask_of("output_tokens=100;chunks=10;chunk_ms=1;reset=in_block"))
    sent = Sent()
    for burst in bursts(reply.course.frames):
        sent = sent.after(burst)
    account = usage.stopped(reply.message.account, sent.made, sent.searches)
    assert sent.begun and 0 < account.whole.output_tokens < 100
    assert account.whole.input_tokens == reply.message.account.whole.input_tokens


def test_a_directive_alone_means_what_the_readme_says() -> None:
    assert directives.read("reset, error_event, html, no_usage") == Directives(
        reset="in_block", error_event="in_block", html=True, no_usage=True
    )
