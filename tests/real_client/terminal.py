"""Claude Code in a terminal of its own, as a developer sits before it."""

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fixtures.waiting import until
from tests.real_client.claude import binary, environment, work_folder

ROWS, COLUMNS = 50, 150
_CONTROL = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_]|[()][0-9A-B])")


class Terminal:
    """What was shown so far, without colours, moves and blanks: a program may draw a blank by moving on."""

    def __init__(self, screen: int) -> None:
        self._screen = screen
        self._raw = bytearray()

    def read(self) -> None:
        try:
            self._raw += os.read(self._screen, 65_536)
        except OSError:  # the program has closed its side
            asyncio.get_running_loop().remove_reader(self._screen)

    @property
    def shown(self) -> str:
        return "".join(_CONTROL.sub(b"", bytes(self._raw)).decode(errors="replace").split())

    async def shows(self, text: str, seconds: float = 20.0) -> None:
        """Return when this has been shown since the start."""
        wanted = "".join(text.split())
        await until(lambda: wanted in self.shown, seconds, f"`{text}` on the screen")

    async def say(self, text: str) -> None:
        """Type a line; Enter counts as such only when it comes apart from the text."""
        os.write(self._screen, text.encode())
        await self.shows(text)
        os.write(self._screen, b"\r")


@asynccontextmanager
async def terminal(version: str, home: Path, base_url: str, key: str, **environ: str) -> AsyncIterator[Terminal]:
    """Past its first questions, ready to be spoken to."""
    work = work_folder(home)
    known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(work): {"hasTrustDialogAccepted": True}}}
    (home / ".claude.json").write_text(json.dumps(known))
    screen, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        str(binary(version)),
        env=environment(home, base_url, key, TERM="xterm-256color", **environ),
        cwd=work, stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
    )  # fmt: skip
    os.close(inside)
    found, loop = Terminal(screen), asyncio.get_running_loop()
    loop.add_reader(screen, found.read)
    try:
        await found.shows("/effort")  # in the line below the prompt, in both versions
        yield found
    finally:
        process.kill()
        await process.wait()
        loop.remove_reader(screen)
        os.close(screen)
