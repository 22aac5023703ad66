"""Items 9, 10, 12, 13, 26: what is refused, in which shape, and what never is."""

import asyncio

from services.cli.conformance.checklist import check
from services.cli.conformance.gateway import MODEL, error_of, header, message, told
from services.cli.conformance.provider import Script, Turn, message_json, plain, says
from services.cli.conformance.recordings import told as recording
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene, inference, until
from services.cli.conformance.wire import Answer

OK = says(plain(message_json()))
UNIFIED = "anthropic-ratelimit-unified-"
FAST_SECONDS = 2.0
DENIALS = 12
LONGEST_WAIT = 60
"""Seconds that the client waits for by itself; above, it gives up at once."""


def unified(answer: Answer) -> dict[str, str]:
    found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    return {name.removeprefix(UNIFIED): value for name, value in found.items() if name.startswith(UNIFIED)}


@check(9, "spent")
async def a_spent_budget_refuses_for_good(scene: Scene) -> str:
    began = asyncio.get_running_loop().time()
    for streamed in (False, True):
        answer = await scene.none_up(scene.gateway.request(scene.keys.spent, message("more", stream=streamed)))
        error = error_of(answer)
        expect((answer.status, error["type"]) == (429, "billing_error"), f"a spent budget is answered {told(answer)}")
        expect(header(answer, "x-should-retry") == "false", "no x-should-retry: false, so it is sent 11 times")
        expect(header(answer, "retry-after").isdigit(), f"retry-after is {header(answer, 'retry-after')!r}")
        expect(len(error["message"].splitlines()) == 1, "the message is not one line")
    took = asyncio.get_running_loop().time() - began
    expect(took < FAST_SECONDS, f"it took {took:.1f} s")
    return f"429 billing_error, x-should-retry: false, retry-after, nothing upstream: “{error['message']}”"


@check(10, "provider", "limited")
async def a_rate_refusal_says_when_to_come_back(scene: Scene) -> str:
    """Two refusals while a request is in flight, then it recovers."""
    released = asyncio.Event()
    before = len(scene.provider.requests)
    scene.provider.script = _held(released)
    async with scene.gateway.connection() as holder:
        holder.send(scene.gateway.request(scene.keys.limited, message("hold")))
        await until(lambda: len(inference(scene.provider.requests[before:])) > 0, 2)
        try:
            waits = [await _refused(scene) for _ in range(2)]
        finally:
            released.set()
        await holder.answer(30)
    scene.provider.script = OK
    answer = await scene.gateway.post(scene.keys.limited, message("again"))
    for _ in range(3):
        if answer.status == 200:
            break
        await asyncio.sleep(min(waits[-1], LONGEST_WAIT))
        answer = await scene.gateway.post(scene.keys.limited, message("again"))
    expect(answer.status == 200, f"it does not recover after {waits[-1]} s: {told(answer)}")
    return f"twice 429 rate_limit_error with retry-after {waits[0]} and {waits[1]}, no x-should-retry, then 200"


def _held(released: asyncio.Event) -> Script:
    async def script(turn: Turn) -> None:
        await released.wait()
        await turn.write(plain(message_json()))

    return script


async def _refused(scene: Scene) -> int:
    answer = await scene.gateway.post(scene.keys.limited, message("too many"))
    expect(answer.status == 429, f"a key at its rate limit is answered {told(answer)}")
    expect(error_of(answer)["type"] == "rate_limit_error", f"its type is {error_of(answer)['type']}")
    wait = header(answer, "retry-after")
    expect(wait.isdigit() and int(wait) > 0, f"retry-after is {wait!r}, the client reads whole seconds only")
    expect(header(answer, "x-should-retry") != "false", "x-should-retry: false stops a client that had better wait")
    return int(wait)


@check(12, "policy")
async def a_denied_model_names_the_others(scene: Scene) -> str:
    answer = await scene.none_up(_denied(scene))
    error = error_of(answer)
    expect((answer.status, error["type"]) == (400, "invalid_request_error"), f"it is answered {told(answer)}")
    words = [part for part in scene.facts.allowed_model.split("-") if part.isalpha() and part != "claude"]
    expect(any(word in error["message"] for word in words), f"no alternative is named: “{error['message']}”")
    return f"400 invalid_request_error, nothing upstream: “{error['message']}”"


def _denied(scene: Scene) -> bytes:
    return scene.gateway.request(scene.keys.policy, message("hi", model=scene.facts.denied_model))


@check(12, "provider", "policy")
async def denials_count_as_nothing(scene: Scene) -> str:
    """Two rounds of six, as the newest client sends them; then one that is allowed."""
    for _ in range(DENIALS):
        answer = await scene.none_up(_denied(scene))
        expect(answer.status == 400, f"a repeated denial is answered {told(answer)}")
    allowed = message("hi", model=scene.facts.allowed_model)
    answer, _ = await scene.sent_up(scene.gateway.request(scene.keys.policy, allowed), OK)
    expect(answer.status == 200, f"after {DENIALS} denials an allowed model is answered {told(answer)}")
    return f"{DENIALS} denials, then an allowed request: 200, so they ate no quota"


@check(12, "books", "policy")
async def a_denial_leaves_nothing_in_the_ledger(scene: Scene) -> str:
    entry = await scene.books.of(await scene.none_up(_denied(scene)))
    expect(not entry.attempts, f"a denial has {len(entry.attempts)} entries in the ledger")
    return f"in the log as {entry.decision['verdict']}, in the ledger not at all"


@check(13, "spent", "policy")
async def no_refusal_is_a_403_or_404(scene: Scene) -> str:
    """403 shows "Please run /login", 404 replaces the text."""
    found = dict[str, int]()
    for streamed in (False, True):
        spent = message("more", stream=streamed)
        found["budget spent"] = (await scene.none_up(scene.gateway.request(scene.keys.spent, spent))).status
        found["model denied"] = (await scene.none_up(_denied(scene))).status
        unknown = message("hi", model="claude-of-no-release-9", stream=streamed)
        found["model unknown"] = (await scene.none_up(scene.gateway.request(scene.keys.policy, unknown))).status
        expect(not {403, 404} & set(found.values()), f"answered {found}")
    return ", ".join(f"{case}: {status}" for case, status in found.items())


@check(26, "provider")
async def a_success_tells_the_budget_natively(scene: Scene) -> str:
    limits = (b"anthropic-ratelimit-requests-remaining: 3", b"anthropic-ratelimit-unified-status: rejected")
    answer = await scene.ask(script=says(plain(message_json(), "200 OK", *limits)))
    names = [name.decode().lower() for name, _ in answer.headers]
    expect("anthropic-ratelimit-requests-remaining" not in names, "the provider's own limits are passed on")
    found = unified(answer)
    expect(found.get("status") in ("allowed", "allowed_warning"), f"unified-status is {found.get('status')!r}")
    wanted = {"status", "reset", "overage-reset", "overage-utilization", "representative-claim", "overage-status"}
    expect(wanted <= set(found), f"missing: {', '.join(sorted(wanted - set(found)))}")
    return f"status {found['status']}, utilization {found['overage-utilization']}; the provider's limits are not told"


@check(26, "provider", "warned")
async def a_success_near_the_cap_warns_natively(scene: Scene) -> str:
    found = unified(await scene.ask(key=scene.keys.warned, script=OK, model=MODEL, max_tokens=10))
    wanted = {"status": "allowed_warning", "overage-status": "allowed_warning", "representative-claim": "overage"}
    expect(wanted.items() <= found.items(), f"near the cap it tells {found}")
    passed = found.get("overage-surpassed-threshold")
    expect(passed in ("0.75", "0.95"), f"overage-surpassed-threshold is {passed!r}")
    return f"near the cap: allowed_warning, {found['overage-utilization']} used, threshold {passed}"


@check(26, "spent")
async def a_refusal_tells_the_budget_natively(scene: Scene) -> str:
    """Header for header what Anthropic's own gateway sends, but for values that depend on the day."""
    found = unified(await scene.none_up(scene.gateway.request(scene.keys.spent, message("more"))))
    wanted = {n.removeprefix(UNIFIED): v for n, v in recording("12-gateway-answers")["budget_exceeded"]["headers"]}
    for name in ("status", "overage-surpassed-threshold", "overage-disabled-reason"):
        expect(found.get(name) == wanted[name], f"{name} is {found.get(name)!r} instead of {wanted[name]!r}")
    for name in ("reset", "overage-reset", "overage-utilization", "overage-period"):
        expect(found.get(name), f"{name} is missing")
    told_too_much = {"representative-claim", "overage-status"} & set(found)
    expect(not told_too_much, f"{', '.join(told_too_much)} makes the client drop the gateway's sentence")
    return f"refused: status rejected, period {found['overage-period']}, reset {found['reset']}"
