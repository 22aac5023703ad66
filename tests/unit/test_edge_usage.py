"""The provider's usage object as lines, and the records that are made of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.core import lifecycle, usage
from services.edge.core.facts import read_facts
from services.edge.core.journal import Progressed, Unfinished
from services.edge.core.lifecycle import Context, Ending, Identity, Verdict
from services.edge.core.policy import Attempt
from services.edge.core.repeats import Repeats
from services.edge.core.usage import Asked, Usage
from shared.contracts.attribution import Charge, Principal
from shared.contracts.budget import Granted
from shared.contracts.config import Credential, Provider
from shared.contracts.edge import Line

ASKED = Asked(model="asked", region="eu", speed="fast", geo="us", input_estimate=50, most_output_tokens=400)
ME = Identity(edge="E", epoch=3)


def lines(**counts: object) -> list[tuple[str, int, str, int]]:
    return [(line.meter, line.quantity, line.model, line.iteration) for line in usage.of(counts, "served", ASKED)]


def test_classes_are_never_folded() -> None:
    assert lines(
        input_tokens=1,
        cache_creation_input_tokens=5,
        cache_creation={"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
        cache_read_input_tokens=4,
        output_tokens=10,
        output_tokens_details={"thinking_tokens": 6},
        server_tool_use={"web_search_requests": 2, "web_fetch_requests": 1},
    ) == [
        ("input", 1, "served", 0),
        ("cache_write_5m", 2, "served", 0),
        ("cache_write_1h", 3, "served", 0),
        ("cache_read", 4, "served", 0),
        ("output", 4, "served", 0),
        ("thinking", 6, "served", 0),
        ("web_search", 2, "served", 0),
        ("web_fetch", 1, "served", 0),
    ]


@pytest.mark.parametrize(
    ("counts", "writes"),
    [
        ({"cache_creation_input_tokens": 9}, [("cache_write_5m", 9)]),
        ({"cache_creation_input_tokens": 9, "cache_creation": None}, [("cache_write_5m", 9)]),
        (
            {"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 4}},
            [("cache_write_1h", 4)],
        ),
        (
            {"cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 4}},
            [("cache_write_5m", 4)],
        ),
    ],
)
def test_the_split_of_cache_writes_wins_over_their_total(counts: dict[str, Any], writes: list[tuple[str, int]]) -> None:
    assert [(meter, quantity) for meter, quantity, _, _ in lines(**counts)] == writes


def test_iterations_are_billed_each_at_its_own_model() -> None:
    iterations = [
        {"type": "message", "input_tokens": 1000, "output_tokens": 100},
        {"type": "compaction", "model": "other", "input_tokens": 2000, "output_tokens": 200},
    ]
    assert lines(input_tokens=1000, output_tokens=100, iterations=iterations) == [
        ("input", 1000, "served", 0),
        ("output", 100, "served", 0),
        ("input", 2000, "other", 1),
        ("output", 200, "other", 1),
    ]


def test_an_attempt_that_was_declined_before_any_output_is_free() -> None:
    iterations = [
        {"type": "message", "model": "first", "input_tokens": 1000, "output_tokens": 0},
        {"type": "fallback_message", "model": "second", "input_tokens": 1000, "output_tokens": 7},
    ]
    assert lines(iterations=iterations) == [("input", 1000, "second", 1), ("output", 7, "second", 1)]


def test_modifiers_are_those_of_the_answer() -> None:
    counts = {"input_tokens": 1, "service_tier": "batch", "speed": "standard", "inference_geo": "global"}
    (line,) = usage.of(counts, "served", ASKED)
    assert line == Line(meter="input", quantity=1, model="served", tier="batch", geo="global", region="eu", batch=True)


def test_counters_that_nobody_knows_are_named() -> None:
    counts = {
        "input_tokens": 1,
        "quantum_tokens": 3,
        "zero_tokens": 0,
        "output_tokens": -4,
        "server_tool_use": {"code_execution_requests": 1, "web_search_requests": 1},
        "iterations": [{"input_tokens": 1, "odd": 2.5}],
        "service_tier": "standard",
        "flag": True,
    }
    assert usage.unknown_counters(counts) == (
        "odd",
        "output_tokens",
        "quantum_tokens",
        "server_tool_use.code_execution_requests",
    )


names = st.sampled_from(
    [
        "input_tokens",
        "output_tokens",
        "cache_creation",
        "iterations",
        "server_tool_use",
        "speed",
        "model",
        "output_tokens_details",
    ]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(names, junk))
def test_no_usage_object_can_crash_us_or_yield_a_negative_line(counts: dict[str, Any]) -> None:
    for line in (*usage.of(counts, "m", ASKED), *usage.estimate(counts, "m", ASKED, 3)):
        assert 0 < line.quantity <= usage.MOST
        msgspec.msgpack.encode(line)
    usage.unknown_counters(counts)


def test_merging_keeps_the_last_value_and_what_was_not_repeated() -> None:
    counts: dict[str, Any] = {"input_tokens": 3, "output_tokens": 1, "cache_creation": {"a": 1, "b": 2}}
    usage.merge(counts, {"output_tokens": 9, "input_tokens": None, "cache_creation": {"b": 5}})
    assert counts == {"input_tokens": 3, "output_tokens": 9, "cache_creation": {"a": 1, "b": 5}}


def test_a_client_that_hangs_up_unseen_pays_for_what_may_have_been_made() -> None:
    def made(stream: bool, elapsed_ms: int) -> dict[str, int]:
        asked = msgspec.structs.replace(ASKED, stream=stream)
        return {line.meter: line.quantity for line in usage.unseen(asked, elapsed_ms).lines}

    assert made(True, 5_000) == {"input": 50}
    assert made(False, 2_000) == {"input": 50, "output": 200}
    assert made(False, 60_000) == {"input": 50, "output": 400}


BODY = b'{"model":"claude-opus-5-5-20260922","messages":[],"max_tokens":900,"stream":true,"speed":"fast"}'
HEADERS = {b"x-claude-code-session-id": b"S", b"x-claude-code-agent-id": b"A", b"user-agent": b"claude-cli/2 (x)"}
CONTEXT = Context(
    me=ME,
    request_id="req",
    received_at=1_000_000,
    config_rev=7,
    principal=Principal(org="O", key="K"),
    facts=read_facts(BODY, HEADERS),
)
ATTEMPT = Attempt(
    provider=Provider(uid="P", org="O", name="anthropic", kind="anthropic", base_url="http://p", region="eu"),
    provider_config="PC",
    credential=Credential(id="main", ref="env:X"),
    wire_model="claude-opus-5-5-20260922",
    base_url="http://p",
)
GRANTED = Granted(
    held_input_tokens=2000,
    held_output_tokens=900,
    held_nano_usd=5,
    charges=(Charge(budget_id="key:K:day", period_id="d"),),
    at_cap="cut",
    remaining_nano_usd=1,
    standings=(),
    admitted_at=1_500_000,
    owner_epoch=4,
)
STARTED = lifecycle.started(CONTEXT, "R", 1, ATTEMPT)
SENT = lifecycle.sent(STARTED, GRANTED, 2_000_000)


def test_reserve_tells_the_owner_what_it_may_cost() -> None:
    ask = lifecycle.reserve(CONTEXT, "R", 2, ATTEMPT, "Q")
    assert (ask.rid, ask.attempt, ask.replaces_rid, ask.edge, ask.epoch) == ("R", 2, "Q", "E", 3)
    assert (ask.model, ask.max_tokens, ask.stream, ask.speed, ask.hold_class) == (
        ATTEMPT.wire_model,
        900,
        True,
        "fast",
        "stream",
    )
    assert (ask.principal.provider_config, ask.session, ask.agent) == ("PC", "S", "A")


def test_a_settled_attempt_keeps_the_attribution_of_its_grant() -> None:
    seen = Usage(lines=(Line(meter="output", quantity=4, model="m"),), response_model="m", stop_reason="end_turn")
    ending = Ending(outcome="ok", closed_at=5_000_000, status=200, first_byte_at=2_250_000, upstream_request_id="up")
    record = lifecycle.settled(SENT, seen, ending)
    assert (record.kind, record.outcome, record.charges, record.held_nano_usd) == ("settled", "ok", GRANTED.charges, 5)
    assert (record.admitted_at, record.sent_at, record.ttft_ms, record.duration_ms) == (1_500_000, 2_000_000, 250, 3000)
    assert (record.canonical_model, record.region, record.route) == ("claude-opus-5-5", "eu", "anthropic")
    assert (record.lines, record.response_model, record.upstream_request_id) == (seen.lines, "m", "up")


def test_input_above_its_bound_is_taken_from_the_output() -> None:
    held = msgspec.structs.replace(GRANTED, held_nano_usd=4_000, held_input_nano_usd=1_000, held_output_tokens=300)
    assert lifecycle.output_left(held, 2_000) == 300
    assert lifecycle.output_left(held, 6_000) == 100
    assert lifecycle.output_left(held, 60_000) == 0
    assert lifecycle.output_left(GRANTED, 60_000) == 900  # an owner of the release before does not say


def test_a_complete_error_answer_is_void() -> None:
    record = lifecycle.settled(SENT, usage.NOTHING, Ending(outcome="upstream_error", closed_at=3_000_000, status=529))
    assert (record.kind, record.status, record.lines) == ("void", 529, ())


def test_what_no_owner_has_seen_is_flagged() -> None:
    record = lifecycle.sent(STARTED, None, 2_000_000).usage
    assert (record.ungoverned, record.charges, record.admitted_at) == (True, (), 0)


def test_an_attempt_that_was_never_sent_is_recovered_as_void() -> None:
    record = lifecycle.recovered(Unfinished(started=STARTED), msgspec.structs.replace(ME, epoch=4), 9)
    assert (record.kind, record.outcome, record.epoch, record.lines, record.closed_at) == ("void", "not_sent", 4, (), 9)


def test_after_a_reboot_a_start_counts_as_sent() -> None:
    record = lifecycle.recovered(Unfinished(started=STARTED, rebooted=True), ME, 9)
    assert (record.kind, record.estimated, record.outcome) == ("recovered", True, "edge_died")
    assert [(line.meter, line.speed) for line in record.lines] == [("input", "fast"), ("output", "fast")]


def test_a_sent_attempt_is_recovered_at_its_hold_or_its_last_progress() -> None:
    at_hold = lifecycle.recovered(Unfinished(started=STARTED, sent=SENT), ME, 9)
    assert [(line.meter, line.quantity) for line in at_hold.lines] == [("input", 2000), ("output", 900)]
    assert (at_hold.kind, at_hold.charges, at_hold.sent_at) == ("recovered", GRANTED.charges, 2_000_000)
    seen = Progressed(rid="R", lines=(Line(meter="input", quantity=12, model="m"),), response_model="m")
    at_progress = lifecycle.recovered(Unfinished(started=STARTED, sent=SENT, progressed=seen), ME, 9)
    assert (at_progress.lines, at_progress.response_model) == (seen.lines, "m")


def test_a_request_whose_process_died_is_completed_from_its_attempts() -> None:
    record = lifecycle.recovered_request((lifecycle.recovered(Unfinished(started=STARTED, sent=SENT), ME, 9),), ME, 9)
    assert (record.request_id, record.verdict, record.outcome, record.attempts) == (
        "req",
        "admitted",
        "edge_died",
        ("R",),
    )
    assert lifecycle.recovered_request((STARTED.usage,), ME, 9).verdict == "unavailable"


def test_a_refused_request_is_completed_without_facts() -> None:
    context = msgspec.structs.replace(CONTEXT, facts=None, principal=Principal())
    verdict = Verdict(verdict="rejected", closed_at=1_250_000, status=401, reason="authentication_error")
    record = lifecycle.completed(context, verdict)
    assert (record.verdict, record.status, record.duration_ms, record.ttft_ms) == ("rejected", 401, 250, -1)
    assert (record.request_model, record.body_digest) == ("", b"")


def test_a_repeat_is_recognised_after_the_client_s_longest_wait() -> None:
    repeats, mark, minute = Repeats(most=3), ("K", "S", "A", b"d"), 60_000_000
    assert [repeats.is_repeat(mark, at * minute) for at in (0, 1, 2, 5)] == [False, True, True, False]
    assert not repeats.is_repeat(("K", "S", "A", b"other"), 6 * minute)


def test_only_so_many_marks_are_kept() -> None:
    repeats = Repeats(most=3)
    assert not any(repeats.is_repeat(("K", str(n), "", b""), 1) for n in range(10))
    assert [repeats.is_repeat(("K", str(n), "", b""), 2) for n in (9, 0)] == [True, False]


def test_a_retry_is_what_the_provider_has_failed_before() -> None:
    """Only that: a second post beside the first, after an answer, or after a refusal of ours counts like any other."""
    repeats, mark = Repeats(), ("K", "S", "A", b"d")

    def post(at: int) -> bool:
        return repeats.is_repeat(mark, at) and repeats.is_retry(mark)

    assert [post(1), post(2)] == [False, False]
    repeats.failed(mark)
    assert [post(3), post(4)] == [True, False]
    repeats.failed(("K", "S", "A", b"other"))
    assert not post(5)


def test_a_storm_of_retries_counts_again_after_as_many_as_the_client_makes() -> None:
    repeats, mark = Repeats(), ("K", "S", "A", b"d")
    counted = 0
    for at in range(1, 34):
        counted += not (repeats.is_repeat(mark, at) and repeats.is_retry(mark))
        repeats.failed(mark)
    assert counted == 3
