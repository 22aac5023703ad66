"""Items 26, 27, 31 with the real client: what a developer sees, and what the client keeps."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.conformance.checklist import client_check
from services.cli.conformance.checks.runs import ended_well
from services.cli.conformance.claude import Claude, environment, work_folder
from services.cli.conformance.relay import Said
from services.cli.conformance.results import NotOffered, expect
from services.cli.conformance.scene import Scene
from services.cli.conformance.terminal import READY, Terminal, opened, past_first_questions

KNOWS_GATEWAYS = (2, 1, 273)


@asynccontextmanager
async def terminal(claude: Claude, key: str, **environ: str) -> AsyncIterator[tuple[Terminal, list[Said]]]:
    with tempfile.TemporaryDirectory(prefix="conformance-home-") as folder:
        home = Path(folder)
        work = work_folder(home)
        past_first_questions(home, work)
        given = environment(home, claude.base_url, key, TERM="xterm-256color", **environ)
        async with (
            opened() as (inside, screen),
            claude.started([str(claude.binary)], given, work, terminal=inside) as (
                _,
                asked,
            ),
        ):
            await screen.shows(READY)
            yield screen, asked


@client_check(26, "provider", "warned")
async def a_warning_is_shown(scene: Scene, claude: Claude) -> str:
    """As a session that is signed in to a gateway sees it; older versions do not know such sessions."""
    if claude.numbers < KNOWS_GATEWAYS:
        raise NotOffered(f"Claude Code {claude.version} knows no gateway sessions")
    async with terminal(claude, scene.keys.warned, CLAUDE_CODE_USE_GATEWAY="1") as (screen, _):
        await screen.say("[[sim: input_tokens=1; output_tokens=1]] Say hello")
        await screen.shows("% of your usage credits")
    return "it shows “You've used 78% of your usage credits”"


@client_check(27, "provider", "policy")
async def discovery_is_kept(scene: Scene, claude: Claude) -> str:
    with tempfile.TemporaryDirectory(prefix="conformance-home-") as folder:
        home = Path(folder)
        turn = await claude.ask(
            scene.keys.policy,
            "Say hello",
            "--model",
            scene.facts.allowed_model,
            home=home,
            CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="",
        )
        ended_well(turn)
        listed = [text for text in _texts(home, "*gateway*") if "claude" in text]
    expect(listed, "its cache lists no model")
    expect(scene.facts.denied_model not in listed[0], f"its cache lists {scene.facts.denied_model}, which is denied")
    return "its cache lists what the key may use"


def _texts(folder: Path, pattern: str) -> list[str]:
    return [path.read_text(errors="replace") for path in folder.rglob(pattern) if path.is_file()]


@client_check(31, "spent")
async def a_blocked_title_does_not_loop(scene: Scene, claude: Claude) -> str:
    """A session's title is asked for beside the first turn; refused like it, it is not asked for again and again."""
    async with terminal(claude, scene.keys.spent, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="") as (screen, asked):
        await screen.say("Say hello")
        await screen.shows("(429)")
        await asyncio.sleep(2)  # a loop would go on
        posts = [each for each in asked if each.method == "POST" and "/v1/messages" in each.path]
    expect(1 <= len(posts) <= 2, f"{len(posts)} posts in the 2 s after the refusal")
    return f"{len(posts)} posts in a terminal session whose budget is spent"
