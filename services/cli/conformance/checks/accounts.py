"""Items 17, 28, 30, 32, 33: what costs nothing, and what is told about quotas."""

import asyncio
import json
from uuid import uuid4

from services.cli.conformance.checklist import check
from services.cli.conformance.files import files
from services.cli.conformance.gateway import error_of, header, message, told
from services.cli.conformance.provider import message_json, plain, says
from services.cli.conformance.recordings import recorded
from services.cli.conformance.recordings import told as recording_of
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene, inference

BURST = 28
"""Counts at once, as `/context` of the newest client sends them."""
STORM = 11
COUNTED = says(plain(b'{"input_tokens": 8}'))


@check(17, "provider")
async def a_burst_of_counts_passes(scene: Scene) -> str:
    """By a key without budget where there is one."""
    key, whose = (scene.keys.spent, "a spent key") if scene.keys.spent else (scene.keys.main, "a key with budget")
    scene.provider.script = COUNTED
    burst = scene.gateway.replay(recorded("06-count-tokens-197"), key)
    answers = await asyncio.gather(*(scene.gateway.send(burst) for _ in range(BURST)))
    found = {answer.status for answer in answers}
    expect(found == {200}, f"{BURST} counts at once by {whose} are answered {found}")
    expect(all(json.loads(answer.body).get("input_tokens") for answer in answers), "an answer without input_tokens")
    return f"{BURST} counts at once by {whose}: all 200"


@check(17, "provider", "limited")
async def counts_are_not_limited_with_inference(scene: Scene) -> str:
    scene.provider.script = COUNTED
    data = scene.gateway.request(scene.keys.limited, message("count me"), path="/v1/messages/count_tokens")
    answers = await asyncio.gather(*(scene.gateway.send(data) for _ in range(BURST)))
    found = {answer.status for answer in answers}
    expect(found == {200}, f"{BURST} counts by a key that may ask one thing at a time are answered {found}")
    return f"{BURST} at once by a key that may ask one thing at a time: 200"


@check(17, "provider")
async def without_counts_upstream_it_says_so_for_good(scene: Scene) -> str:
    """Else the older client turns each failure into a billed call."""
    missing = plain(b'{"type":"error","error":{"type":"not_found_error","message":"no"}}', "404 Not Found")
    data = scene.gateway.request(scene.keys.main, message("count"), path="/v1/messages/count_tokens")
    answer = await scene.sent(data, says(missing))
    expect(answer.status == 501, f"a provider that cannot count makes it {told(answer)} instead of 501")
    expect(header(answer, "x-should-retry") == "false", "501 without x-should-retry: false")
    return f"a provider that cannot count: {told(answer)}, x-should-retry: false"


@check(17, "provider", "books")
async def counts_are_free_in_the_ledger(scene: Scene) -> str:
    data = scene.gateway.request(scene.keys.main, message("count"), path="/v1/messages/count_tokens")
    entry = await scene.books.of(await scene.sent(data, COUNTED))
    expect(not entry.attempts, f"a count has {len(entry.attempts)} entries in the ledger")
    return "none in the ledger"


@check(28)
async def probes_are_answered_without_a_key(scene: Scene) -> str:
    for path in ("", "/", "/api/hello"):
        answer = await scene.gateway.head(path)
        expect(answer.status == 200, f"HEAD {path or 'of the base URL'} is answered {answer.status}")
    return "HEAD of the base URL, / and /api/hello: 200 without a key"


@check(28, "logs")
async def probes_leave_no_line(scene: Scene) -> str:
    mark = f"probe-{uuid4().hex}"
    await scene.gateway.head("/api/hello", ("User-Agent", mark))
    names = [path.name for path, data in files(scene.facts.logs, ".log") if mark.encode() in data]
    expect(not names, f"written down in {', '.join(names)}")
    return "not in the logs"


@check(30, "provider", "storm")
async def a_storm_of_retries_takes_one_request_of_the_quota(scene: Scene) -> str:
    """Eleven posts with the same bytes, as the client sends them, answered 429 by the provider."""
    session = ("X-Claude-Code-Session-Id", str(uuid4()))
    limited = plain(b'{"type":"error","error":{"type":"rate_limit_error","message":"p"}}', "429 Too Many Requests")
    data = scene.gateway.request(scene.keys.storm, message("storm"), session)
    before = len(scene.provider.requests)
    for number in range(1, STORM + 1):
        answer = await scene.sent(data, says(limited))
        came = len(inference(scene.provider.requests[before:]))
        expect(came == number, f"post {number} of one storm was refused by the gateway itself: {told(answer)}")
    for number in range(1, scene.facts.storm_requests):
        asked = scene.gateway.request(scene.keys.storm, message(f"another {number}"), session)
        answer = await scene.sent(asked, says(plain(message_json())))
        expect(
            answer.status == 200,
            f"after the storm, request {number} of {scene.facts.storm_requests - 1}: {told(answer)}",
        )
    last = await scene.sent(scene.gateway.request(scene.keys.storm, message("one more"), session))
    expect(last.status == 429, f"the quota of {scene.facts.storm_requests} a minute does not hold: {told(last)}")
    rest = scene.facts.storm_requests - 1
    return (
        f"{STORM} posts of one body, then {rest} others pass of a quota of {rest + 1} a minute, and the next is refused"
    )


@check(30, "provider", "books")
async def a_storm_of_retries_is_told_as_one(scene: Scene) -> str:
    session = ("X-Claude-Code-Session-Id", str(uuid4()))
    failing = plain(b'{"type":"error","error":{"type":"api_error","message":"p"}}', "500 Internal Server Error")
    data = scene.gateway.request(scene.keys.main, message("a storm in the books"), session)
    for _ in range(STORM):
        await scene.sent(data, says(failing))
    entries = await scene.books.of_session(session[1], STORM)
    repeats = sorted(bool(entry.decision["repeat"]) for entry in entries)
    expect(repeats == [False] + [True] * (STORM - 1), f"of {STORM} posts, {sum(repeats)} are known as repeats")
    return f"in the log, {STORM} posts: 1 request and {STORM - 1} repeats"


@check(32)
async def the_balance_is_told_as_the_client_reads_it(scene: Scene) -> str:
    key = scene.keys.spent or scene.keys.main
    answer = await scene.gateway.send(scene.gateway.request(key, b"", path="/api/oauth/usage", method="GET"))
    expect(answer.status == 200, f"GET /api/oauth/usage is answered {told(answer)}")
    found, wanted = json.loads(answer.body), recording_of("12-gateway-answers")["usage_endpoint"]["body"]
    for part in ("extra_usage", "limits"):
        expect(part in found, f"{part} is missing")
    missing = set(wanted["extra_usage"]) - set(found["extra_usage"])
    expect(not missing, f"extra_usage has no {', '.join(sorted(missing))}")
    expect(found["limits"], "no limit is told")
    missing = set(wanted["limits"][0]) - set(found["limits"][0])
    expect(not missing, f"a limit has no {', '.join(sorted(missing))}")
    limit = found["limits"][0]
    return f"{limit['group']} limit at {limit['percent']} %, fields as Anthropic's gateway has them"


LONG = 4_200_000
"""Characters: above a million tokens, the largest context there is."""


@check(33, "provider")
async def a_long_prompt_is_refused_so_that_the_client_compacts(scene: Scene) -> str:
    """A limit of the gateway's own must use the provider's words; having none is as good."""
    data = scene.gateway.request(scene.keys.main, message("word " * (LONG // 5)))
    before = len(scene.provider.requests)
    answer = await scene.sent(data, says(plain(message_json())), seconds=60)
    if inference(scene.provider.requests[before:]):
        expect(answer.status == 200, f"it went upstream, and yet is answered {told(answer)}")
        return f"{LONG / 1e6:.1f} million characters go upstream: no limit of its own; the provider's words pass (7)"
    words = error_of(answer)["message"]
    expect(words.startswith("prompt is too long: "), f"its own limit says “{words}”, so the client does not compact")
    return f"its own limit says “{words}”"
