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

from services.cli.conformance.results import Broken

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
        """Return when this has been shown since the start. Raises Broken."""
        wanted = "".join(text.split())
        deadline = asyncio.get_running_loop().time() + seconds
        while wanted not in self.shown:
            if asyncio.get_running_loop().time() > deadline:
                raise Broken(f"`{text}` was not shown within {seconds:.0f} s; last: …{self.shown[-300:]}")
            await asyncio.sleep(0.02)

    async def say(self, text: str) -> None:
        """Type a line; Enter counts as such only when it comes apart from the text."""
        os.write(self._screen, text.encode())
        await self.shows(text)
        os.write(self._screen, b"\r")


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[int, Terminal]]:
    """A terminal: the descriptor for the program, and what is shown. The program must be gone before it is closed."""
    screen, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    found, loop = Terminal(screen), asyncio.get_running_loop()
    loop.add_reader(screen, found.read)
    try:
        yield inside, found
    finally:
        loop.remove_reader(screen)
        os.close(inside)
        os.close(screen)


def past_first_questions(home: Path, work: Path) -> None:
    """Write down that its first questions were answered."""
    known = {"hasCompletedOnboarding": True, "theme": "dark", "projects": {str(work): {"hasTrustDialogAccepted": True}}}
    (home / ".claude.json").write_text(json.dumps(known))


READY = "/effort"
"""Shown in the line below the prompt, in all versions, when it can be spoken to."""
