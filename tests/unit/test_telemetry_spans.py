"""Records as spans: any record makes a valid one, below the caller's, the same each time, without an unknown attribute."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Told
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from services.telemetry.core import identity
from services.telemetry.core.attributes import LONGEST_TEXT
from services.telemetry.core.keeping import Resumed, resume, young
from services.telemetry.core.measures import INSTRUMENTS, measurements
from services.telemetry.core.spans import Address, address, attempt_span, request_span
from services.telemetry.settings import Signals, signals
from services.telemetry.stores.tracing import Tracing
from shared import telemetry
from shared.contracts.attribution import Principal
from shared.contracts.edge import METERS, Line, RequestCompleted, UsageRecorded
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from shared.settings import SettingsError
from tests.contract.samples import AT, PRICED, PRINCIPAL, RID

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAMES = {
    value
    for name, value in vars(telemetry).items()
    if name.isupper() and isinstance(value, str) and re.match(r"gen_ai|sluicegate|server|http|error", value)
}
ENDED = RequestCompleted(
    request_id="req_1",
    edge="e",
    epoch=1,
    spool_seq=1,
    principal=PRINCIPAL,
    verdict="admitted",
    status=200,
    attempts=(RID,),
    received_at=AT - 2_000,
    admitted_at=AT,
    closed_at=AT + 901_000,
    ttft_ms=215,
    operation="messages",
    session="s-1",
    request_model="claude-sonnet",
    trace_id=TRACE,
    parent_span_id=PARENT,
)
TRACED = msgspec.structs.replace(PRICED, usage=msgspec.structs.replace(PRICED.usage, trace_id=TRACE, session="s-1"))

_numbers = st.integers(-(1 << 63), (1 << 64) - 1)
_texts = st.one_of(
    st.text(max_size=20), st.text(min_size=300, max_size=400), st.sampled_from([TRACE, PARENT, "0" * 32])
)
_simple: dict[Any, st.SearchStrategy[Any]] = {
    int: st.one_of(_numbers, st.integers(0, 5), st.integers(AT, AT + 10**9)),
    str: _texts,
    bool: st.booleans(),
    bytes: st.binary(max_size=8),
    tuple[str, ...]: st.lists(_texts, max_size=3).map(tuple),
}


def records(kind: type[Any], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any record of this kind: each field anything of its type, but those given."""
    types = {field.name: getattr(field.type, "__origin__", field.type) for field in msgspec.structs.fields(kind)}
    types |= {name: tuple[str, ...] for name, found in types.items() if found is tuple}
    plain = {name: _simple[found] for name, found in types.items() if found in _simple and name not in given}
    return st.builds(kind, **plain, **given)


_principals = records(Principal)
_lines = st.lists(records(Line, meter=st.sampled_from([*METERS, "new"])), max_size=4).map(tuple)
_usages = records(UsageRecorded, principal=_principals, lines=_lines, v=st.just(1))
_priced = records(UsagePriced, usage=_usages, lines=st.just(()), usage_at=st.just(Position()), v=st.just(1))
_completed = records(RequestCompleted, principal=_principals, v=st.just(1))


def told(span: Any) -> Told:
    """As a receiver reads it."""
    made = Tracing(Resource({})).made(span)
    assert made is not None
    [spans] = [scope.spans for each in encode_spans([made]).resource_spans for scope in each.scope_spans]
    found: Told = Told.FromString(spans[0].SerializeToString())
    return found


def attributes(span: Told) -> dict[str, Any]:
    found = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, str(kind))
        found[each.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


def judge(span: Told) -> None:
    assert len(span.trace_id) == 16 and any(span.trace_id)
    assert len(span.span_id) == 8 and any(span.span_id)
    assert 0 <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert all(span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano for event in span.events)
    assert 0 < len(span.name) <= LONGEST_TEXT
    found = attributes(span)
    assert found.keys() <= NAMES
    texts = [text for value in found.values() for text in (value if isinstance(value, list) else [value])]
    assert all(len(text) <= LONGEST_TEXT for text in texts if isinstance(text, str))


@given(_completed)
def test_any_request_makes_a_valid_span(record: RequestCompleted) -> None:
    span = request_span(record)
    assert span == request_span(record)
    if span.caller is None or span.caller.sampled or not span.caller.span_id:
        judge(told(span))


@given(_priced)
def test_any_attempt_that_began_makes_a_valid_span_below_its_request_s(priced: UsagePriced) -> None:
    span = attempt_span(priced)
    if span is None:
        assert (priced.usage.sent_at or priced.usage.admitted_at) <= 0
        return
    assert span.request_span_id == identity.span_of_request(priced.usage.request_id)
    if span.caller is None or span.caller.sampled:
        found = told(span)
        judge(found)
        assert int.from_bytes(found.parent_span_id, "big") == span.request_span_id


@given(_priced)
def test_any_attempt_is_measured_by_known_dimensions_alone(priced: UsagePriced) -> None:
    for one in measurements(priced):
        assert one.name in INSTRUMENTS
        assert one.value >= 0
        assert one.attributes.keys() <= NAMES
        assert not any("uid" in name or name.endswith(".id") for name in one.attributes)


def test_the_request_stands_below_the_caller_s_span_and_the_attempt_below_the_request() -> None:
    request, attempt = told(request_span(ENDED)), told(attempt_span(TRACED))
    assert request.trace_id.hex() == attempt.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert attempt.parent_span_id == request.span_id
    assert (request.kind, attempt.kind) == (Told.SPAN_KIND_SERVER, Told.SPAN_KIND_CLIENT)


def test_a_request_without_a_trace_begins_one_and_its_attempts_are_in_it() -> None:
    alone = msgspec.structs.replace(ENDED, trace_id="", parent_span_id="")
    request, attempt = told(request_span(alone)), told(attempt_span(PRICED))
    assert request.trace_id == attempt.trace_id
    assert not request.parent_span_id
    assert attempt.parent_span_id == request.span_id


@pytest.mark.parametrize("trace", ["0" * 32, "A" * 32, "f" * 31, "", "no trace"])
def test_a_trace_that_w3c_calls_invalid_is_none(trace: str) -> None:
    assert identity.caller(trace, PARENT, sampled=True) is None


def test_ids_are_those_of_the_record_whoever_reads_it_and_when() -> None:
    assert identity.trace_of("req_1") == 50545091706648914397899975537042150089
    assert len({identity.span_of_request("a"), identity.span_of_attempt("a"), identity.span_of_request("b")}) == 3


def test_the_span_of_an_attempt_says_what_was_used_and_what_it_cost() -> None:
    found = attributes(told(attempt_span(TRACED, Address("api.anthropic.com", 443))))
    assert told(attempt_span(TRACED)).name == "chat claude-sonnet-4-5"
    assert found["gen_ai.usage.input_tokens"] == 3 + 12_304, "what went through the cache is input too"
    assert found["gen_ai.usage.cache_creation.input_tokens"] == 12_304
    assert found["gen_ai.usage.output_tokens"] == 550
    assert found["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert found["gen_ai.provider.name"] == "anthropic"
    assert found["gen_ai.conversation.id"] == "s-1"
    assert (found["server.address"], found["server.port"]) == ("api.anthropic.com", 443)
    assert found["sluicegate.cost_nano_usd"] == 54_399_000
    assert found["sluicegate.team.uid"] == PRINCIPAL.team
    assert "error.type" not in found


def test_thinking_is_output_and_told_apart() -> None:
    lines = (Line(meter="output", quantity=5, model="m"), Line(meter="thinking", quantity=7, model="m"))
    usage = msgspec.structs.replace(PRICED.usage, lines=lines)
    found = attributes(told(attempt_span(msgspec.structs.replace(PRICED, usage=usage))))
    assert (found["gen_ai.usage.output_tokens"], found["gen_ai.usage.reasoning.output_tokens"]) == (12, 7)


@pytest.mark.parametrize(
    ("outcome", "status", "told_type", "error", "kind"),
    [
        ("ok", 200, "", False, None),
        ("client_gone", 200, "", False, None),
        ("upstream_error", 529, "overloaded_error", True, "overloaded_error"),
        ("upstream_error", 500, "", True, "500"),
        ("upstream_broken", 200, "", True, "upstream_broken"),
        ("cut", 200, "", True, "cut"),
    ],
)
def test_an_error_is_what_the_provider_or_we_broke(
    outcome: str, status: int, told_type: str, error: bool, kind: str | None
) -> None:
    usage = msgspec.structs.replace(PRICED.usage, outcome=outcome, status=status, error_type=told_type)
    span = attempt_span(msgspec.structs.replace(PRICED, usage=usage))
    assert span is not None
    assert (span.error, span.attributes.get("error.type")) == (error, kind)


def test_a_refusal_names_the_budget_and_is_no_error_of_the_server() -> None:
    refused = msgspec.structs.replace(
        ENDED, verdict="refused", reason="spent", budget_id="key:K:month", status=429, error_type="rate_limit_error"
    )
    span = request_span(refused)
    assert span.attributes["sluicegate.verdict"] == "refused"
    assert span.attributes["sluicegate.refusal.reason"] == "spent"
    assert span.attributes["sluicegate.refusal.budget"] == "key:K:month"
    assert not span.error


def test_an_attempt_that_was_never_admitted_has_no_span() -> None:
    usage = msgspec.structs.replace(PRICED.usage, sent_at=0, admitted_at=0, outcome="not_sent")
    assert attempt_span(msgspec.structs.replace(PRICED, usage=usage)) is None
    assert measurements(msgspec.structs.replace(PRICED, usage=usage)) == ()


def test_every_name_of_the_genai_conventions_is_one_that_is_published() -> None:
    published = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    published |= {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}
    assert {name for name in NAMES if name.startswith("gen_ai.")} <= published


def test_the_caller_that_records_nothing_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    unsampled = msgspec.structs.replace(ENDED, trace_sampled=False)
    attempt = msgspec.structs.replace(TRACED, usage=msgspec.structs.replace(TRACED.usage, trace_sampled=False))
    followed = Tracing(Resource({}))
    assert followed.made(request_span(unsampled)) is None
    span = attempt_span(attempt)
    assert span is not None
    assert followed.made(span) is None
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert Tracing(Resource({})).made(request_span(unsampled)) is not None


@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_a_ratio_takes_a_request_and_its_attempts_or_neither(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    tracing, taken = Tracing(Resource({})), 0
    for number in range(300):
        request = msgspec.structs.replace(ENDED, request_id=f"req_{number}", trace_id="", parent_span_id="")
        usage = msgspec.structs.replace(PRICED.usage, request_id=f"req_{number}")
        span = attempt_span(msgspec.structs.replace(PRICED, usage=usage))
        assert span is not None
        both = (tracing.made(request_span(request)) is None, tracing.made(span) is None)
        assert both in {(True, True), (False, False)}
        taken += not both[0]
    assert 100 < taken < 200


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://api.anthropic.com", Address("api.anthropic.com", 443)),
        ("http://127.0.0.1:8080/x", Address("127.0.0.1", 8080)),
        ("http://[::1", None),
        ("nonsense", None),
        ("https://host:99999", None),
    ],
)
def test_an_address_is_read_from_a_provider_s_url(url: str, found: Address | None) -> None:
    assert address(url) == found


def test_reading_begins_at_now_and_goes_on_where_it_was() -> None:
    end = Position(log_id="L", seq=100)
    assert resume(None, end) == Resumed(end)
    assert resume(Position(log_id="L", seq=40), end) == Resumed(Position(log_id="L", seq=40))
    assert resume(Position(log_id="K", seq=40), end) == Resumed(end, missed=True)
    assert resume(Position(log_id="L", seq=101), end) == Resumed(end, missed=True)


def test_the_young_are_those_that_ended_within_the_time() -> None:
    assert young([AT * 1_000, (AT - 10_000_000) * 1_000, (AT - 10_000_001) * 1_000], AT, 10) == [0, 1]


def test_the_variables_say_which_signals_go_and_how() -> None:
    assert signals({}) == Signals("http/protobuf", "")
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert signals(endpoint) == Signals("grpc", "grpc")
    assert signals(endpoint | {"OTEL_METRICS_EXPORTER": "none"}) == Signals("grpc", "")
    assert signals(endpoint | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}).traces == "http/protobuf"
    assert signals(endpoint | {"OTEL_TRACES_EXPORTER": "none"}).traces == ""


def test_variables_meant_for_claude_code_in_the_same_shell_do_no_harm() -> None:
    claude = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", "OTEL_METRICS_EXPORTER": "prometheus, console"}
    assert signals(claude | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) == Signals("http/protobuf", "")


def test_a_protocol_that_nobody_speaks_is_said() -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL: avian is not among http/protobuf"):
        signals({"OTEL_EXPORTER_OTLP_PROTOCOL": "avian"})
