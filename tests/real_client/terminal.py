"""Claude Code in a terminal of its own, as a developer sits before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.cli.conformance.terminal import READY, Terminal, opened, past_first_questions
from tests.real_client.claude import binary, environment, work_folder


@asynccontextmanager
async def terminal(version: str, home: Path, base_url: str, key: str, **environ: str) -> AsyncIterator[Terminal]:
    """Past its first questions, ready to be spoken to."""
    work = work_folder(home)
    past_first_questions(home, work)
    async with opened() as (inside, found):
        process = await asyncio.create_subprocess_exec(
            str(binary(version)),
            env=environment(home, base_url, key, TERM="xterm-256color", **environ),
            cwd=work, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
        )  # fmt: skip
        try:
            await found.shows(READY)
            yield found
        finally:
            process.kill()
            await process.wait()


__all__ = ["Terminal", "terminal"]
