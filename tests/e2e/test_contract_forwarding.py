"""Client contract, items 1–5, 7, 18, 21, 22, 28: what passes through the gateway, and how unchanged it is."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.cli.conformance.checks.forwarding import ERRORS, FORMLESS
from tests.fixtures.contract import (
    PROVIDER_SECRET,
    Gateway,
    Recorded,
    error_of,
    installation,
    message,
    recorded,
    request,
    secret,
)
from tests.fixtures.upstream import CAPTURES, message_json, plain, says, stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPLAYED = {
    "02-first-turn-197": "02-first-turn-197.sse",
    "03-tool-result-turn-197": "03-tool-result-turn-197.sse",
    "04-subagent-haiku-197": "04-subagent-haiku-197.sse",
    "05-title-request-197": "05-title-request-197.sse",
    "08a-midstream-error-329": "08a-midstream-error-329.sse",
    "09-hint-headers-main-329": "09-hint-headers-main-329.sse",
    "10-hint-headers-subagent-329": "10-hint-headers-subagent-329.sse",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with installation(tmp_path_factory.mktemp("forwarding")) as running:
        yield running


def passed(recording: Recorded, head: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """What of the recording's own headers reached the provider."""
    names = {name.lower() for name, _ in recording.passing}
    found = [(name.decode(), value.decode()) for name, value in head]
    return [header for header in found if header[0].lower() in names]


@pytest.mark.parametrize("name", REPLAYED)
async def test_a_recorded_request_and_its_answer_pass_byte_for_byte(gateway: Gateway, name: str) -> None:
    recording, sse = recorded(name), (CAPTURES / REPLAYED[name]).read_bytes()
    answer, sent = await gateway.sent_up(recording.bytes_for(secret("recorded")), says(stream(sse)))
    assert (answer.status, answer.body, answer.whole) == (200, sse, True)
    assert sent.body == recording.body
    assert sent.line == f"POST {recording.path.removeprefix('/anthropic')} HTTP/1.1".encode()
    assert passed(recording, sent.headers) == recording.passing
    assert sent.header("x-api-key") == PROVIDER_SECRET.encode()
    assert secret("recorded").encode() not in sent.head + sent.body


async def test_a_request_without_stream_is_answered_as_json(gateway: Gateway) -> None:
    recording = recorded("08b-nonstream-fallback-329")
    answered = json.loads((CAPTURES / "08b-nonstream-fallback-329.json").read_text())["response"]["body"]
    written = json.dumps(answered).encode()
    answer, sent = await gateway.sent_up(recording.bytes_for(secret("recorded")), says(plain(written)))
    assert (answer.status, answer.body) == (200, written)
    assert answer.header("content-type") == b"application/json"
    assert sent.body == recording.body


async def test_a_recorded_count_is_passed_on_and_free(gateway: Gateway) -> None:
    recording = recorded("06-count-tokens-197")
    answer, sent = await gateway.sent_up(recording.bytes_for(secret("recorded")), says(plain(b'{"input_tokens": 8}')))
    assert (answer.status, answer.body) == (200, b'{"input_tokens": 8}')
    assert (sent.body, passed(recording, sent.headers)) == (recording.body, recording.passing)
    assert (await gateway.request_row(answer))["verdict"] == "free"


async def test_recorded_model_discovery_is_answered(gateway: Gateway) -> None:
    listed = b'{"data":[{"type":"model","id":"claude-x","display_name":"X"}],"has_more":false}'
    answer, _ = await gateway.sent_up(
        recorded("07-models-discovery-197").bytes_for(secret("recorded")), says(plain(listed))
    )
    assert answer.status == 200
    assert [model["id"] for model in json.loads(answer.body)["data"]] == ["claude-x"]


async def test_what_nobody_knows_yet_passes(gateway: Gateway) -> None:
    """Invented betas, headers and body fields: the lists are open."""
    invented = [
        ("anthropic-beta", "time-travel-2031-01-01,claude-code-20250219"),
        ("anthropic-invented", "a, b"),
        ("X-Claude-Code-Invented", "Yes"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]
    body = b'{"zeta": {"b": 1, "a": [1.0, 1e3]},\n "model":"claude-sonnet-5-5" , "messages": [], "alpha":"\\u00e9"}'
    answer, sent = await gateway.sent_up(request("recorded", body, invented), says(plain(message_json())))
    assert answer.status == 200
    assert sent.body == body
    found = [(name.decode(), value.decode()) for name, value in sent.headers]
    assert [header for header in found if header in invented] == invented


@pytest.mark.parametrize(
    "hop",
    [
        ("Connection", "keep-alive, x-mine"),
        ("TE", "trailers"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "x"),
    ],
)
async def test_what_belongs_to_one_connection_stays_there(gateway: Gateway, hop: tuple[str, str]) -> None:
    asked = request("recorded", message("hop"), [hop, ("x-mine", "1")])
    _, sent = await gateway.sent_up(asked, says(plain(message_json())))
    assert all(value != hop[1].encode() for name, value in sent.headers if name.lower() == hop[0].lower().encode())


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true", "/v1/messages?x=1&beta=%41&y"])
async def test_any_query_string_is_served(gateway: Gateway, path: str) -> None:
    asked = request("recorded", message("query"), path=path)
    answer, sent = await gateway.sent_up(asked, says(plain(message_json())))
    assert (answer.status, sent.line) == (200, f"POST {path} HTTP/1.1".encode())


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        ([("Authorization", f"Bearer {secret('dev')}")], 200),
        ([("x-api-key", secret("dev"))], 200),
        ([("Authorization", f"Bearer {secret('dev')}"), ("x-api-key", secret("dev"))], 200),
        ([("Authorization", f"Bearer {secret('dev')}"), ("x-api-key", "another")], 200),
        ([("Authorization", "Bearer another"), ("x-api-key", secret("dev"))], 401),
    ],
    ids=["bearer", "x-api-key", "both", "authorization wins", "authorization wins, unknown"],
)
async def test_the_key_comes_in_either_header_or_both(
    gateway: Gateway, credentials: list[tuple[str, str]], status: int
) -> None:
    assert (await gateway.post("dev", message("who am I"), *credentials)).status == status


TOLD = ("retry-after", "x-should-retry", "request-id", "content-type")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("status", "kind", "headers"), ERRORS, ids=[f"{s[:3]} {k} {b' '.join(h).decode()}" for s, k, h in ERRORS]
)
async def test_an_error_of_the_provider_passes_unmodified(
    gateway: Gateway, status: str, kind: str, headers: list[bytes], streamed: bool
) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "prompt is too long: 2 tokens > 1 maximum"}})
    asked = request("recorded", message("fail", stream=streamed))
    answer, _ = await gateway.sent_up(asked, says(plain(body.encode(), status, *headers)))
    assert (answer.status, answer.body) == (int(status[:3]), body.encode())
    wanted = {"content-type": b"application/json", "request-id": b"req_upstream"}
    wanted |= {line.split(b": ")[0].decode(): line.split(b": ")[1] for line in headers}
    assert {name: answer.header(name) for name in TOLD if answer.header(name)} == wanted


@pytest.mark.parametrize(("status", "body", "kind"), FORMLESS)
async def test_an_error_in_no_known_form_passes_unmodified(
    gateway: Gateway, status: str, body: bytes, kind: bytes
) -> None:
    asked = request("recorded", message("fail"))
    answer, _ = await gateway.sent_up(asked, says(plain(body, status, kind=kind)))
    assert (answer.status, answer.body, answer.header("content-type")) == (int(status[:3]), body, kind)
    assert (await gateway.entry(answer))["cost_nano_usd"] == 0


async def test_the_provider_s_own_limits_are_not_told(gateway: Gateway) -> None:
    """They describe the credential that all keys share."""
    limits = (b"anthropic-ratelimit-requests-remaining: 3", b"anthropic-ratelimit-unified-status: rejected")
    answer, _ = await gateway.sent_up(request("recorded", message("x")), says(plain(message_json(), "200 OK", *limits)))
    names = [name for name, _ in answer.headers if name.startswith(b"anthropic-ratelimit-")]
    assert answer.header("anthropic-ratelimit-unified-status") == b"allowed"
    assert names.count(b"anthropic-ratelimit-unified-status") == 1
    assert b"anthropic-ratelimit-requests-remaining" not in names


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_a_redirect_of_the_provider_ends_here(gateway: Gateway, status: str, path: str) -> None:
    """The client would follow it: with the virtual key and the prompt, around the ledger."""
    redirect = plain(b"", status, b"Location: http://elsewhere.test/v1/messages")
    answer, _ = await gateway.sent_up(request("recorded", message("go"), path=path), says(redirect))
    assert answer.status == 503
    assert answer.header("location") is None
    assert answer.header("x-should-retry") == b"false"
    assert "redirect" in error_of(answer)["message"]
    assert (await gateway.request_row(answer))["reason"] == "upstream_redirected"


@pytest.mark.parametrize("path", ["/v1/messages/", "//v1/messages", "/v1/models/", "/", "", "/v1/messages/batches"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_path_is_ever_answered_with_a_redirect(gateway: Gateway, path: str, method: str) -> None:
    answer = await gateway.post("dev", b"", path=path, method=method)
    assert answer.status == 404
    assert error_of(answer)["type"] == "not_found_error"


async def test_every_answer_carries_an_id_that_the_ledger_knows(gateway: Gateway) -> None:
    theirs, _ = await gateway.sent_up(request("recorded", message("a")), says(plain(message_json())))
    assert theirs.header("request-id") == b"req_upstream"
    assert (await gateway.entry(theirs))["upstream_request_id"] == "req_upstream"
    bare = plain(message_json()).replace(b"request-id: req_upstream\r\n", b"")
    ours, _ = await gateway.sent_up(request("recorded", message("b")), says(bare))
    row = await gateway.entry(ours)
    assert (ours.header("request-id") or b"").decode() == row["request_id"]


async def test_31_mb_are_served_and_33_mb_refused(gateway: Gateway) -> None:
    answer, sent = await gateway.sent_up(request("recorded", message("x" * 31_000_000)), says(plain(message_json())))
    assert (answer.status, len(sent.body) > 31_000_000) == (200, True)
    refused = await gateway.post("recorded", message("x" * 34_700_000))
    assert (refused.status, error_of(refused)["type"]) == (413, "request_too_large")


async def test_probes_are_answered_without_a_key_and_leave_no_trace(gateway: Gateway) -> None:
    for path in ("", "/", "/api/hello"):
        answer = await gateway.send(f"HEAD /anthropic{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert answer.status == 200, path
    seen = await gateway.simulate("dev", "after the probes", "")
    await gateway.request_row(seen)
    assert await gateway.requests(0, operation="probe") == []
    assert "api/hello" not in "".join(log.read_text() for log in (gateway.up.data_dir / "logs").glob("edge*"))
