"""What is read from request bodies and headers."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.core.facts import Facts, Trace, read_facts
from shared.digest import body_digest
from shared.errors import Rejected
from tests.fixtures.exchanges import MESSAGES, recorded

BODY: dict[str, Any] = {"model": "claude-opus-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def facts(headers: dict[bytes, bytes] | None = None, **fields: object) -> Facts:
    return read_facts(json.dumps(BODY | fields).encode(), headers or {})


def sizes(found: Facts) -> dict[str, int]:
    return {bound.meter: bound.quantity for bound in found.bounds}


def image(source: dict[str, str]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "source": source}]}]


@pytest.mark.parametrize("name", MESSAGES)
def test_every_recorded_request_is_read(name: str) -> None:
    headers, raw, body = recorded(name)
    found = read_facts(raw, headers)
    assert (found.model, found.max_tokens, found.stream) == (
        body["model"],
        body["max_tokens"],
        body.get("stream", False),
    )
    assert json.loads(raw[slice(*found.model_span)]) == body["model"]
    assert found.body_digest == body_digest(msgspec.json.encode(body["messages"]))
    assert found.session == json.loads(body["metadata"]["user_id"])["session_id"]
    assert sizes(found) == {"text_bytes": len(raw)}
    assert found.input_bytes == len(raw)
    assert found.client_version.startswith("claude-cli/2.1.")
    assert found.cache_ttl == ("5m" if b"cache_control" in raw else "")


def test_the_class_of_a_recorded_request_is_hinted_or_told_by_its_shape() -> None:
    classes = {
        name[:2]: read_facts(raw, headers).request_class for name in MESSAGES for headers, raw, _ in [recorded(name)]
    }
    assert classes == {
        "02": "main",
        "03": "main",
        "04": "subagent",
        "05": "auxiliary",
        "08": "main",
        "09": "main",
        "10": "subagent",
    }


def test_a_stranger_gets_no_class() -> None:
    assert facts().request_class == ""
    assert facts({b"x-claude-code-request-class": b"compaction"}).request_class == "compaction"


def test_the_header_names_the_session_before_the_body_does() -> None:
    user = json.dumps({"session_id": "in-body"})
    assert facts(metadata={"user_id": user}).session == "in-body"
    assert facts({b"x-claude-code-session-id": b"in-header"}, metadata={"user_id": user}).session == "in-header"
    assert facts(metadata={"user_id": "user_1_account__session_0000-1111-2222"}).session == "0000-1111-2222"


@pytest.mark.parametrize(
    "metadata", [None, 5, "x", {"user_id": 7}, {"user_id": "{"}, {"user_id": '{"session_id":9}'}, {}]
)
def test_metadata_of_any_shape_is_tolerated(metadata: object) -> None:
    assert facts(metadata=metadata).session == ""


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"[]", "JSON"),
        (b'{"model":"m","messages":[]', "JSON"),
        (b'{"messages":[]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":5,"messages":[]}', "model"),
        (b'{"model":"","messages":[]}', "model"),
        (b'{"model":"a\\nb","messages":[]}', "model"),
        (b'{"model":"m","messages":"hi"}', "messages"),
        (b'{"model":"m","messages":[5]}', "malformed"),
        (b'{"model":"m","messages":[],"max_tokens":-1}', "max_tokens"),
        (b'{"model":"m","messages":[],"max_tokens":1e3}', "max_tokens"),
        (b'{"model":"m","messages":[],"max_tokens":99999999999999999999999}', "max_tokens"),
        (b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"m","messages":[],"speed":[]}', "speed"),
        (b'{"model":"m","messages":[],"model":"n"}', "twice"),
        (b'{"model":"m","messages":[],"mo\\u0064el":"n"}', "twice"),
        (b'{"model":"m","messages":[],"max_tokens":1,"max_tokens":2}', "twice"),
        (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"model":"m","messages":[{"content":[{"content":' * 1 + b"[" * 50_000, "JSON"),
    ],
)
def test_a_malformed_body_is_rejected_with_a_reason(body: bytes, named: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_facts(body, {})
    assert (caught.value.code, caught.value.status) == ("invalid_request_error", 400)
    assert named in caught.value.message


@given(st.binary(max_size=200))
def test_no_bytes_at_all_can_crash_the_reader(body: bytes) -> None:
    with pytest.raises(Rejected):
        read_facts(body, {})


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5),
        max_size=6,
    ),
    st.sampled_from([None, 1, 4]),
    st.booleans(),
)
def test_the_model_is_found_wherever_it_stands(extra: dict[str, Any], indent: int | None, escaped: bool) -> None:
    mixed = {name: value for name, value in extra.items() if name not in ("max_tokens", "stream", "speed")} | BODY
    raw = json.dumps(mixed, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    try:
        found = read_facts(raw, {})
    except Rejected:
        return  # a strange value of a field we know
    start, end = found.model_span
    assert json.loads(raw[start:end]) == BODY["model"]
    assert json.loads(raw[:start] + b'"other"' + raw[end:]) == json.loads(raw) | {"model": "other"}


def test_images_count_by_number_and_not_as_text() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 50_000}
    found = facts(messages=image(source) * 2)
    assert sizes(found)["image"] == 2
    assert sizes(found)["text_bytes"] == found.input_bytes - 100_000


def test_an_image_in_a_tool_result_is_found() -> None:
    source = {"type": "base64", "data": "A" * 100}
    result = {"type": "tool_result", "content": [{"type": "image", "source": source}]}
    assert sizes(facts(messages=[{"role": "user", "content": [result]}]))["image"] == 1


@pytest.mark.parametrize("source", [{"type": "url", "url": "https://x/"}, {"type": "file", "file_id": "f"}])
def test_an_input_by_reference_cannot_be_bounded(source: dict[str, str]) -> None:
    assert sizes(facts(messages=image(source)))["unboundable"] == 1


def test_an_escape_hides_nothing() -> None:
    raw = json.dumps(BODY | {"messages": image({"type": "url", "url": "https://x/"})}).encode()
    hidden = raw.replace(b'"image"', b'"\\u0069mage"').replace(b'"url", "url"', b'"\\u0075rl", "url"')
    assert hidden != raw
    assert sizes(read_facts(hidden, {}))["unboundable"] == 1


def test_pages_of_a_pdf_are_counted_where_they_show() -> None:
    def pages(pdf: bytes) -> int:
        source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(pdf).decode()}
        block = {"type": "document", "source": source}
        return sizes(facts(messages=[{"role": "user", "content": [block]}]))["page"]

    assert pages(b"%PDF /Type /Pages /Type /Page x /Type/Page y") == 2
    assert pages(b"compressed") == 100


def test_tools_of_the_provider_bound_searches_or_nothing() -> None:
    def tools(*kinds: dict[str, Any]) -> dict[str, int]:
        found = sizes(facts(tools=[{"name": "x", **kind} for kind in kinds]))
        del found["text_bytes"]
        return found

    search = {"type": "web_search_20250305"}
    assert tools({"type": "custom"}, {}, {"type": "bash_20250124"}, {"type": "tool_search_tool_regex_20251119"}) == {}
    assert tools(search | {"max_uses": 8}) == {"web_search": 8}
    assert tools(search) == {"web_search": 10, "unboundable": 10}
    assert tools({"type": "code_execution_20250825"}) == {"unboundable": 10}
    assert sizes(facts(mcp_servers=[{"url": "https://x/"}]))["unboundable"] == 10


def test_the_longest_cache_write_counts() -> None:
    def block(**control: str) -> dict[str, Any]:
        return {"type": "text", "text": '"ttl":"1h"', "cache_control": {"type": "ephemeral"} | control}

    assert facts(system=[{"type": "text", "text": '"ttl":"1h" cache_control'}]).cache_ttl == ""
    assert facts(system=[block()]).cache_ttl == "5m"
    assert facts(system=[block(ttl="5m")], tools=[block(ttl="1h")]).cache_ttl == "1h"
    assert facts(messages=[{"role": "user", "content": [block(ttl="1h")]}]).cache_ttl == "1h"
    assert facts(cache_control={"type": "ephemeral", "ttl": "24h"}).cache_ttl == "1h"


def test_thinking_that_nobody_can_count_makes_the_output_invisible() -> None:
    beta = {b"anthropic-beta": b"a,thinking-token-count-2026-05-13"}
    assert facts(thinking={"type": "disabled"}).visible_output
    assert not facts(thinking={"type": "adaptive"}).visible_output
    assert facts(beta, thinking={"type": "adaptive"}).visible_output


def test_labels_are_safe_to_store() -> None:
    found = facts({b"x-claude-code-agent-id": b"a\xff\x00" + b"b" * 500, b"user-agent": b"sdk/1.0 (x)"})
    assert (found.agent[:3], len(found.agent), found.client_version) == ("a??", 128, "sdk/1.0")


def test_a_trace_is_joined_only_when_it_is_well_formed() -> None:
    good = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    assert facts({b"traceparent": good}).trace == Trace("a" * 32, "b" * 16, sampled=True)
    assert not facts({b"traceparent": good[:-1] + b"2"}).trace.sampled
    assert facts({b"traceparent": good + b"x"}).trace == Trace()


@pytest.mark.parametrize(
    "part",
    [
        b'"messages": [{"role": "user", "content": "\xff\xfe"}]',
        b'"messages": [{"role": "user", "content": [{"type": "\xff"}]}]',
        b'"messages": [], "tools": [{"type": "\xff"}]',
        b'"messages": [], "system": [{"type": "text", "cache_control": {"ttl": "\xff"}}]',
    ],
)
def test_bytes_that_are_no_utf_8_are_the_client_s_mistake_wherever_they_stand(part: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        read_facts(b'{"model": "claude-opus-5-5", "max_tokens": 1, ' + part + b"}", {})
    assert refused.value.status == 400


@given(
    st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.integers(), st.text(max_size=4)), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_the_model_stands_where_it_is_said_to_however_the_body_is_written(
    more: dict[str, Any], compact: bool, ascii_only: bool
) -> None:
    known = {"max_tokens", "stream", "system", "tools", "metadata", "thinking", "speed", "inference_geo"}
    body = {name: value for name, value in more.items() if name not in known} | BODY
    raw = json.dumps(body, separators=(",", ":") if compact else None, ensure_ascii=ascii_only).encode(
        errors="surrogatepass"
    )
    try:
        found = read_facts(raw, {})
    except Rejected as error:
        assert "malformed" in error.message or "not a JSON" in error.message  # half a surrogate is no text
        return
    assert raw[slice(*found.model_span)] == b'"claude-opus-5-5"'


@pytest.mark.parametrize("model", [b'"m"', b'"mmmmmmmm"'])
def test_a_field_given_twice_is_found_in_a_compact_body_too(model: bytes) -> None:
    raw = b'{"model":%b,"messages":[],"max_tokens":10,"model":%b}' % (model, model)
    with pytest.raises(Rejected, match="twice"):
        read_facts(raw, {})
