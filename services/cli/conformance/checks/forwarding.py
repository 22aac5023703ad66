"""Items 1, 4, 5, 7, 8, 21, 22: what passes through, and how unchanged it is."""

import hashlib
import json

from services.cli.conformance.checklist import check
from services.cli.conformance.gateway import error_of, header, message, told
from services.cli.conformance.provider import message_json, plain, says, stream
from services.cli.conformance.recordings import recorded, stream_of
from services.cli.conformance.recordings import told as whole_recording
from services.cli.conformance.results import Broken, expect
from services.cli.conformance.scene import Scene

OK = says(plain(message_json()))
REPLAYED = (
    "02-first-turn-197", "03-tool-result-turn-197", "04-subagent-haiku-197", "05-title-request-197",
    "09-hint-headers-main-329", "10-hint-headers-subagent-329",
)  # fmt: skip
ODD = b'{"zeta": {"b": 1, "a": [1.0, 1e3]},\n "model":"%b" , "max_tokens":9, "messages": [], "alpha":"\\u00e9"}'


@check(1, "provider")
async def any_query_string_is_served(scene: Scene) -> str:
    paths = ("/v1/messages", "/v1/messages?beta=true", "/v1/messages?x=1&beta=%41&y")
    for path in paths:
        answer, sent = await scene.sent_up(scene.gateway.request(scene.keys.main, message("hi"), path=path), OK)
        expect(answer.status == 200, f"POST {path} is answered {told(answer)}")
        expect(sent.line.split(b" ")[1].endswith(path.encode()), f"POST {path} went upstream as {sent.line.decode()}")
    return f"{len(paths)} forms of the path: 200, and the same query upstream"


@check(4, "provider")
async def recorded_bodies_arrive_unchanged(scene: Scene) -> str:
    size = 0
    for name in REPLAYED:
        recording = recorded(name)
        answer, sent = await scene.sent_up(
            scene.gateway.replay(recording, scene.keys.main), says(stream(stream_of(name)))
        )
        expect(answer.status == 200, f"fixture {name} is answered {told(answer)}")
        _same(recording.body, sent.body, name)
        expect(answer.body == stream_of(name), f"fixture {name}: the answer's bytes are changed")
        size += len(sent.body)
    return f"{len(REPLAYED)} recorded requests, {size:,} bytes: same SHA-256 upstream, and their answers here"


@check(4, "provider")
async def odd_json_arrives_unchanged(scene: Scene) -> str:
    model = json.loads(recorded("02-first-turn-197").body)["model"].encode()
    body = ODD % model
    _, sent = await scene.sent_up(scene.gateway.request(scene.keys.main, body), OK)
    _same(body, sent.body, "odd spacing, numbers, escapes and unknown keys")
    return "unknown keys, key order, spacing, 1.0 and \\u00e9 as sent"


def _same(wanted: bytes, got: bytes, what: str) -> None:
    if hashlib.sha256(wanted).digest() == hashlib.sha256(got).digest():
        return
    at = next((n for n, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    near = f"{wanted[max(0, at - 12) : at + 12]!r} became {got[max(0, at - 12) : at + 12]!r}"
    raise Broken(f"{what}: the body differs from byte {at} of {len(wanted)}: {near}")


@check(5, "provider")
async def headers_of_the_client_arrive(scene: Scene) -> str:
    invented = [
        ("anthropic-beta", "time-travel-2031-01-01,claude-code-20250219"),
        ("anthropic-invented", "a, b"),
        ("X-Claude-Code-Invented", "Yes"),
    ]
    _, sent = await scene.sent_up(scene.gateway.request(scene.keys.main, message("hi"), *invented), OK)
    _arrived(invented, sent.headers)
    count = len(invented)
    for name in REPLAYED:
        recording = recorded(name)
        _, sent = await scene.sent_up(scene.gateway.replay(recording, scene.keys.main), says(stream(stream_of(name))))
        wanted = [pair for pair in recording.passing if pair[0].lower().startswith(("anthropic-", "x-claude-code-"))]
        _arrived(wanted, sent.headers)
        count += len(wanted)
    return f"{count} anthropic-* and x-claude-code-* headers, invented ones too, with their values"


def _arrived(wanted: list[tuple[str, str]], got: list[tuple[bytes, bytes]]) -> None:
    have = {(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in got}
    missing = [f"{name}: {value}" for name, value in wanted if (name.lower(), value) not in have]
    expect(not missing, f"did not arrive as sent: {'; '.join(missing)}")


@check(5, "provider")
async def what_belongs_to_one_connection_stays_there(scene: Scene) -> str:
    hops = (("TE", "trailers"), ("Keep-Alive", "timeout=5"), ("Proxy-Authorization", "Basic eA=="))
    for hop in (*hops, ("Connection", "keep-alive, x-mine")):
        asked = scene.gateway.request(scene.keys.main, message("hop"), hop, ("x-mine", "1"))
        _, sent = await scene.sent_up(asked, OK)
        kept = [
            name for name, value in sent.headers if (name.lower(), value) == (hop[0].lower().encode(), hop[1].encode())
        ]
        expect(not kept, f"{hop[0]}: {hop[1]} was forwarded")
    return "TE, Keep-Alive, Proxy-Authorization and Connection are not forwarded"


@check(5, "provider")
async def an_encoding_is_asked_for_that_can_be_metered(scene: Scene) -> str:
    zipped = ("Accept-Encoding", "gzip, deflate, br, zstd")
    answer, sent = await scene.sent_up(scene.gateway.request(scene.keys.main, message("zip"), zipped), OK)
    expect(answer.body == message_json(), "the answer's bytes are changed")
    return f"upstream was asked for {(sent.header('accept-encoding') or b'nothing').decode()!r}"


_Case = tuple[str, str, list[bytes]]
ERRORS: list[_Case] = [
    ("400 Bad Request", "invalid_request_error", []),
    ("400 Bad Request", "invalid_request_error", [b"x-should-retry: true"]),
    ("400 Bad Request", "billing_error", []),
    ("401 Unauthorized", "authentication_error", []),
    ("402 Payment Required", "billing_error", []),
    ("403 Forbidden", "permission_error", []),
    ("404 Not Found", "not_found_error", []),
    ("408 Request Timeout", "timeout_error", []),
    ("409 Conflict", "conflict_error", []),
    ("413 Payload Too Large", "request_too_large", []),
    ("422 Unprocessable Entity", "invalid_request_error", []),
    ("429 Too Many Requests", "rate_limit_error", []),
    ("429 Too Many Requests", "rate_limit_error", [b"retry-after: 7"]),
    ("429 Too Many Requests", "rate_limit_error", [b"retry-after: 61", b"x-should-retry: true"]),
    ("429 Too Many Requests", "rate_limit_error", [b"x-should-retry: false"]),
    ("451 Unavailable For Legal Reasons", "api_error", []),
    ("500 Internal Server Error", "api_error", []),
    ("503 Service Unavailable", "api_error", [b"x-should-retry: false"]),
    ("504 Gateway Timeout", "timeout_error", []),
    ("529 Overloaded", "overloaded_error", []),
    ("529 Overloaded", "overloaded_error", [b"x-should-retry: false"]),
]
"""A provider's errors: the table of what the client makes of each has a row for every one."""
FORMLESS = (
    ("429 Too Many Requests", b"slow down", b"text/plain"),
    ("502 Bad Gateway", b"<html>502 Bad Gateway</html>", b"text/html"),
    ("503 Service Unavailable", b"", b"text/plain"),
)
TOLD = ("retry-after", "x-should-retry", "request-id")


@check(7, "provider")
async def an_error_of_the_provider_passes_unmodified(scene: Scene) -> str:
    for status, kind, headers in ERRORS:
        error = {"type": kind, "message": "prompt is too long: 2 tokens > 1 maximum"}
        body = json.dumps({"error": error, "type": "error"}).encode()
        for streamed in (False, True):
            asked = scene.gateway.request(scene.keys.main, message("fail", stream=streamed))
            answer, _ = await scene.sent_up(asked, says(plain(body, status, *headers)))
            case = f"{status[:3]} {kind} {b' '.join(headers).decode()}".strip()
            expect(answer.status == int(status[:3]), f"{case} became {told(answer)}")
            expect(answer.body == body, f"{case}: its body became {answer.body[:80]!r}")
            wanted = {"request-id": "req_upstream"} | dict(line.decode().split(": ") for line in headers)
            found = {name: header(answer, name) for name in TOLD if answer.header(name) is not None}
            expect(found == wanted, f"{case}: headers {wanted} became {found}")
    return f"{len(ERRORS)} errors, streamed and not: status, body, {', '.join(TOLD)} as sent"


@check(7, "provider")
async def an_error_in_no_known_form_passes_unmodified(scene: Scene) -> str:
    for status, body, kind in FORMLESS:
        asked = scene.gateway.request(scene.keys.main, message("fail"))
        answer, _ = await scene.sent_up(asked, says(plain(body, status, kind=kind)))
        expect((answer.status, answer.body) == (int(status[:3]), body), f"{status} became {told(answer)}")
    return "plain text, HTML and an empty 503 too"


@check(8, "provider")
async def what_is_not_streamed_is_json(scene: Scene) -> str:
    recording = recorded("08b-nonstream-fallback-329")
    written = json.dumps(whole_recording("08b-nonstream-fallback-329")["response"]["body"]).encode()
    ways = [scene.gateway.replay(recording, scene.keys.main)]
    ways += [scene.gateway.request(scene.keys.main, message("whole", **flag)) for flag in ({}, {"stream": False})]
    for data in ways:
        answer, _ = await scene.sent_up(data, says(plain(written)))
        kind = header(answer, "content-type")
        expect(answer.status == 200 and kind.startswith("application/json"), f"it is answered {answer.status} {kind}")
        expect(answer.body == written, "the answer's bytes are changed")
    return "stream absent, stream: false and fixture 08b: application/json with the provider's bytes"


@check(21, "provider")
async def large_bodies_pass_up_to_32_mb(scene: Scene) -> str:
    large = message("x" * 31_000_000)
    answer, sent = await scene.sent_up(scene.gateway.request(scene.keys.main, large), OK, seconds=120)
    expect(answer.status == 200, f"31 MB are answered {told(answer)}")
    _same(large, sent.body, "31 MB")
    return "31 MB: 200, same SHA-256 upstream"


@check(21)
async def larger_bodies_are_refused_with_413(scene: Scene) -> str:
    answer = await scene.none_up(scene.gateway.request(scene.keys.main, message("x" * 34_700_000)))
    expect((answer.status, error_of(answer)["type"]) == (413, "request_too_large"), f"33 MB: {told(answer)}")
    return f"33 MB: 413 request_too_large, “{error_of(answer)['message']}”"


@check(21, "provider")
async def expect_and_chunked_are_tolerated(scene: Scene) -> str:
    body = message("in pieces")
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    chunked = scene.gateway.request(scene.keys.main, b"", ("Transfer-Encoding", "chunked")) + pieces
    answer, sent = await scene.sent_up(chunked, OK)
    expect(answer.status == 200, f"a chunked body is answered {told(answer)}")
    _same(body, sent.body, "a chunked body")
    asked = scene.gateway.request(scene.keys.main, body, ("Expect", "100-continue"))
    answer, sent = await scene.sent_up(asked, OK)
    expect(answer.status == 200, f"Expect: 100-continue is answered {told(answer)}")
    return "chunked and Expect: 100-continue are served"


PATHS = (
    "/v1/messages",
    "/v1/messages/",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/",
    "/",
    "",
    "/api/hello",
)


@check(22)
async def no_path_is_answered_with_a_redirect(scene: Scene) -> str:
    for path in PATHS:
        answers = {"HEAD": await scene.gateway.head(path)}
        for method in ("GET", "POST"):
            answers[method] = await scene.gateway.post("", b"", path=path, method=method)
        found = {method: answer.status for method, answer in answers.items() if 300 <= answer.status < 400}
        expect(not found, f"{path} is answered {found}")
    return f"{3 * len(PATHS)} requests to {len(PATHS)} paths: no 3xx"


@check(22, "provider")
async def a_redirect_of_the_provider_ends_here(scene: Scene) -> str:
    """The client would follow it: with the virtual key and the prompt, around the ledger."""
    found = set[str]()
    for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
        redirect = plain(b"", status, b"Location: http://elsewhere.test/v1/messages")
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = await scene.sent(scene.gateway.request(scene.keys.main, message("go"), path=path), says(redirect))
            expect(not 300 <= answer.status < 400, f"the provider's {status[:3]} on {path} is passed on")
            expect(answer.header("location") is None, f"the provider's Location on {path} is passed on")
            found.add(told(answer))
    return f"the provider's redirects: {', '.join(sorted(found))} without a Location"
