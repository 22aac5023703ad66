"""The few facts of a request body that governance needs. The body itself is never rebuilt."""

import re
from typing import Annotated, TypeVar

import msgspec

from services.edge.core.bounds import Body, contents
from services.edge.core.headers import Index
from shared.contracts.budget import Bound
from shared.digest import body_digest
from shared.errors import Rejected

T = TypeVar("T")
LONGEST_MODEL = 256
LONGEST_LABEL = 128  # labels are stored for ever
MOST_TOKENS = 100_000_000
BYTES_PER_TOKEN = 3  # prose and code have more bytes to the token, so that estimates err above the truth


class Trace(msgspec.Struct, frozen=True):
    """The caller's, of W3C `traceparent`; ids in hexadecimal, empty where there is none."""

    trace_id: str = ""
    parent_span_id: str = ""
    sampled: bool = True


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """model: as asked for. model_span: bytes of its JSON value in the body, quotes included, for a splice.

    max_tokens: 0 when the body gives none. body_digest: as in `shared.digest`.
    input_estimate: tokens of input, likely not too few; for what ends before the provider has counted.
    request_class: as the client hints, else main, subagent or auxiliary for Claude Code, else empty.
    visible_output: every billed token of output shows in the stream, as text or as an estimate.
    """

    model: str
    model_span: tuple[int, int]
    max_tokens: int
    stream: bool
    bounds: tuple[Bound, ...]
    input_bytes: int
    input_estimate: int
    body_digest: bytes
    session: str = ""
    agent: str = ""
    parent_agent: str = ""
    prompt_id: str = ""
    request_class: str = ""
    client_version: str = ""
    trace: Trace = Trace()
    speed: str = "standard"
    geo: str = ""
    cache_ttl: str = ""
    visible_output: bool = True
    thinking: bool = False
    tools: bool = False


class _Thinking(msgspec.Struct, frozen=True):
    type: str = "disabled"


class _Metadata(msgspec.Struct, frozen=True):
    user_id: str | None = None


class _User(msgspec.Struct, frozen=True):
    session_id: str = ""


_body = msgspec.json.Decoder(Body)
_text = msgspec.json.Decoder(str)
_optional_text = msgspec.json.Decoder(str | None)
_tokens = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)] | None)
_flag = msgspec.json.Decoder(bool | None)
_thinking = msgspec.json.Decoder(_Thinking | None)
_metadata = msgspec.json.Decoder(_Metadata)
_user = msgspec.json.Decoder(_User)

_KEY = re.compile(rb'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*')
_END = re.compile(rb"\s*}\s*\Z")
_OLD_USER = re.compile(r"_session_([0-9a-fA-F-]{8,64})$")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE = Trace()
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
THINKING_COUNTED = b"thinking-token-count"


def read_facts(body: bytes, headers: Index) -> Facts:
    """Raises Rejected("invalid_request_error") naming the field. Unknown fields are none of our business."""
    found = _top_level(body)
    try:
        return _facts(body, found, headers)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Rejected("invalid_request_error", f"The request body is malformed: {_why(error)}") from None


def _why(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _top_level(body: bytes) -> Body:
    try:
        return _body.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Rejected("invalid_request_error", f"The request body is not a JSON object: {_why(error)}") from None


def _facts(body: bytes, found: Body, headers: Index) -> Facts:
    messages = _required(found, "messages", b"[", "a list")
    model = _model(found)
    thinking = _read(_thinking, found, "thinking")
    thinks = thinking is not None and thinking.type != "disabled"
    tools = len(memoryview(found.get("tools", b""))) > len("[]")
    seen = contents(found)
    sizes = seen.bounds(len(body))
    return Facts(
        model=model,
        model_span=_span(body, found, "model"),
        max_tokens=_read(_tokens, found, "max_tokens") or 0,
        stream=bool(_read(_flag, found, "stream")),
        bounds=sizes,
        input_bytes=len(body),
        input_estimate=-(-sizes[0].quantity // BYTES_PER_TOKEN),
        body_digest=body_digest(messages),
        session=_session(found, headers),
        agent=label(headers, b"x-claude-code-agent-id"),
        parent_agent=label(headers, b"x-claude-code-parent-agent-id"),
        prompt_id=label(headers, b"x-claude-code-prompt-id"),
        request_class=_request_class(headers, tools),
        client_version=client_version(headers),
        trace=trace(headers),
        speed=_read(_optional_text, found, "speed") or "standard",
        geo=_read(_optional_text, found, "inference_geo") or "",
        cache_ttl=seen.cache_ttl,
        visible_output=not thinks or THINKING_COUNTED in headers.get(b"anthropic-beta", b""),
        thinking=thinks,
        tools=tools,
    )


def _required(found: Body, name: str, opening: bytes, kind: str) -> msgspec.Raw:
    """A field that must be there, of the kind its first byte shows."""
    if name not in found:
        raise Rejected("invalid_request_error", f"{name}: field required")
    if bytes(memoryview(found[name])[:1]) != opening:
        raise Rejected("invalid_request_error", f"{name}: must be {kind}")
    return found[name]


def _read(decoder: msgspec.json.Decoder[T], found: Body, name: str) -> T | None:
    """A field that may be missing. Raises Rejected when it has the wrong type."""
    if name not in found:
        return None
    try:
        return decoder.decode(found[name])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("invalid_request_error", f"{name}: {_why(error)}") from None


def _model(found: Body) -> str:
    _required(found, "model", b'"', "a string")
    model = _read(_text, found, "model") or ""
    if not model or len(model) > LONGEST_MODEL or _UNPRINTABLE.search(model):
        raise Rejected("invalid_request_error", f"model: must be 1 to {LONGEST_MODEL} printable ASCII characters")
    return model


def _span(body: bytes, found: Body, name: str) -> tuple[int, int]:
    """Where a field's value stands in the body.

    A name that occurs twice is refused: we would read one of the two and the provider perhaps the other.
    """
    return _span_of_compact(body, found, name) or _span_by_walking(body, found, name)


def _span_of_compact(body: bytes, found: Body, name: str) -> tuple[int, int] | None:
    """As clients write JSON: without white space. Spaces, escapes and second fields only ever add bytes, so where the
    lengths add up there are none. None where they do not.
    """
    at, span = len("{"), (0, 0)
    for key, value in found.items():
        start = at + len(key) + len('"":')
        at = start + len(memoryview(value)) + len(",")
        if key == name:
            span = (start, at - len(","))
    return span if at == len(body) else None


def _span_by_walking(body: bytes, found: Body, name: str) -> tuple[int, int]:
    """Walks the fields in order by the lengths of their values; a name that occurs twice breaks the walk."""
    at, span = body.index(b"{") + 1, (0, 0)
    for key, value in found.items():
        match = _KEY.match(body, at)
        if match is None or _text.decode(match[1]) != key:
            raise Rejected("invalid_request_error", "A field of the request body is given twice.")
        at = match.end() + len(memoryview(value))
        if key == name:
            span = (match.end(), at)
    if not _END.match(body, at):
        raise Rejected("invalid_request_error", "A field of the request body is given twice.")
    return span


def _session(found: Body, headers: Index) -> str:
    """The header's session, else the one in `metadata.user_id`, which is JSON in a string, but may be anything."""
    if session := label(headers, b"x-claude-code-session-id"):
        return session
    try:
        user_id = _metadata.decode(found["metadata"]).user_id or "" if "metadata" in found else ""
        if user_id.startswith("{"):
            return _clean(_user.decode(user_id).session_id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # not ours to judge: the provider may accept it
    old = _OLD_USER.search(user_id)
    return old[1] if old else ""


def _request_class(headers: Index, tools: bool) -> str:
    if hinted := label(headers, b"x-claude-code-request-class"):
        return hinted
    if b"x-claude-code-session-id" not in headers:
        return ""
    if b"x-claude-code-agent-id" in headers:
        return "subagent"
    return "main" if tools else "auxiliary"


def client_version(headers: Index) -> str:
    """`claude-cli/2.1.197`: the first word of User-Agent."""
    return label(headers, b"user-agent").partition(" ")[0]


def trace(headers: Index) -> Trace:
    """Bit 0 of the flags says whether the caller records it."""
    found = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return Trace(found[1].decode(), found[2].decode(), bool(int(found[3], 16) & 1)) if found else _NO_TRACE


def label(headers: Index, name: bytes) -> str:
    """A header as a label that is safe to store: printable ASCII, not too long."""
    return _clean(headers[name].decode("latin-1")) if name in headers else ""


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)[:LONGEST_LABEL]
