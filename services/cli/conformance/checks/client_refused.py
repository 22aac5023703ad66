"""Items 9–12, 17, 23, 30 with the real client: what it makes of each refusal."""

import asyncio
import itertools

from services.cli.conformance.checklist import client_check
from services.cli.conformance.checks.runs import arrived, ended_well, was_refused
from services.cli.conformance.claude import Claude
from services.cli.conformance.gateway import MODEL
from services.cli.conformance.relay import Said
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene, until


@client_check(9, "spent")
async def a_spent_budget_is_told_at_once(scene: Scene, claude: Claude) -> str:
    plain_turn = await claude.ask(scene.keys.spent, "Say hello")
    was_refused(plain_turn, 429)
    fallback = await claude.ask(scene.keys.spent, "Say hello", "--fallback-model", "claude-haiku-4-5-20251001")
    was_refused(fallback, 429)
    expect("Request rejected (429)" in fallback.text, f"it shows “{fallback.text}”")
    return f"1 post, with and without --fallback-model; it shows “{plain_turn.text}”"


_LIMITED = asyncio.Semaphore(1)
REFUSALS = 2
HOLD = b'{"model":"%b","max_tokens":9,"messages":[{"role":"user","content":"[[sim: late_headers=60]] hold"}]}'


@client_check(10, "provider", "limited")
async def it_recovers_from_a_rate_refusal_alone(scene: Scene, claude: Claude) -> str:
    async with _LIMITED:  # one version at a time: the other would be in its way
        said, before = list[Said](), len(scene.provider.requests)
        async with scene.gateway.connection() as holder:
            holder.send(scene.gateway.request(scene.keys.limited, HOLD % MODEL.encode()))
            await until(lambda: len(scene.provider.requests) > before, 5)
            running = asyncio.create_task(claude.ask(scene.keys.limited, "Say hello", said=said))
            await until(lambda: running.done() or sum(each.method == "POST" for each in said) > REFUSALS, 120)
        turn = await running  # who held it has hung up now
    ended_well(turn)
    retries = [line for line in turn.lines if line.get("subtype") == "api_retry"]
    expect(len(retries) >= REFUSALS, f"it was refused {len(retries)} times instead of {REFUSALS}")
    expect({line.get("error_status") for line in retries} == {429}, f"it was refused with {retries}")
    expect(len(turn.posts) == len(retries) + 1, f"{len(turn.posts)} posts and {len(retries)} retries")
    gaps = [b.at - a.at for a, b in itertools.pairwise(turn.posts)]
    asked_for = [float(line.get("retry_delay_ms", 0)) / 1000 for line in retries]
    expect(all(gap >= wait - 0.1 for gap, wait in zip(gaps, asked_for, strict=True)), f"gaps {gaps} of {asked_for} s")
    return f"{len(retries)} refusals, waits of {', '.join(f'{gap:.1f}' for gap in gaps)} s, then the answer"


@client_check(11)
async def an_unknown_key_is_told_at_once(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask("vk-conformance-nobody-knows", "Say hello")
    was_refused(turn, 401)
    if scene.keys.revoked:
        was_refused(await claude.ask(scene.keys.revoked, "Say hello"), 401)
    return f"1 post; it shows “{turn.text}”"


@client_check(12, "policy")
async def a_denial_is_cheap(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask(scene.keys.policy, "Say hello", "--model", scene.facts.denied_model)
    was_refused(turn, 400, posts=6)
    came = arrived(scene, turn.session) if not scene.lacks(("provider",)) else 0
    expect(came == 0, f"{came} posts reached the provider")
    return f"{len(turn.posts)} posts in {turn.seconds:.1f} s, none upstream; it shows “{turn.text}”"


@client_check(17, "provider", "spent")
async def context_is_counted_while_the_budget_is_spent(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask(scene.keys.spent, "/context")
    ended_well(turn, "/context")
    counts = [each for each in turn.asked if "/count_tokens" in each.path]
    expect(len(counts) >= 10, f"only {len(counts)} counts were asked for")
    expect(not turn.posts, f"{len(turn.posts)} of them became calls that are billed")
    came = arrived(scene, turn.session, "/count_tokens")
    expect(came == len(counts), f"only {came} of its {len(counts)} counts reached the provider")
    return f"/context with a spent key: {len(counts)} counts served, no call that is billed"


@client_check(23)
async def a_subscription_login_is_refused_with_a_reason(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask("", "Say hello", CLAUDE_CODE_OAUTH_TOKEN="dummy")  # noqa: S106  # no real one
    was_refused(turn, 401, posts=2)  # it looks once whether somebody has renewed its token
    return f"it shows “{turn.text}”"


@client_check(30, "provider", "books")
async def its_retries_are_one_request(scene: Scene, claude: Claude) -> str:
    turn = await claude.ask(scene.keys.main, "[[sim: status=429]] Say hello", CLAUDE_CODE_MAX_RETRIES="2")
    expect(turn.exit_code == 1, "an answer in spite of 429")
    expect(len(turn.posts) == 3, f"{len(turn.posts)} posts instead of 3")
    entries = await scene.books.of_session(turn.session, 3)
    repeats = sorted(bool(entry.decision["repeat"]) for entry in entries)
    expect(repeats == [False, True, True], f"of 3 posts, {sum(repeats)} are known as repeats")
    return "3 posts: 1 request, 2 repeats"
