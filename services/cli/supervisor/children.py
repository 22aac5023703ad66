"""All children of one `up`: started together, told about in ports.json, stopped in order."""

import asyncio
from collections.abc import Callable, Sequence

from services.cli.supervisor.child import Child
from services.cli.supervisor.data import Layout
from services.cli.supervisor.program import Program


class Children:
    """Started one after the other or side by side; the last started stops first."""

    def __init__(self, layout: Layout, family: int, changed: Callable[[], None], tell: Callable[[str], None]) -> None:
        self._layout, self._family, self._changed, self._tell = layout, family, changed, tell
        self._children: dict[str, Child] = {}

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    @property
    def pids(self) -> dict[str, list[int]]:
        return {name: [child.pid] for name, child in self._children.items()}

    @property
    def ports(self) -> dict[str, dict[str, int]]:
        return {name: child.ports for name, child in self._children.items()}

    async def start(self, programs: Sequence[Program], started: Callable[[Child], None]) -> None:
        """Side by side; returns when all are ready. Raises the first Trouble; the others stay for `stop`."""
        for program in programs:
            self._children[program.name] = Child(program, self._layout, self._family, self._changed, self._tell)

        async def start_one(child: Child) -> None:
            await child.start()
            started(child)

        tasks = [asyncio.create_task(start_one(self._children[program.name])) for program in programs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, groups: Sequence[Sequence[str]], seconds: float) -> None:
        """Group after group; within a group side by side. Each child has so many seconds, then it is killed."""
        for group in groups:
            members = [self._children[name] for name in group if name in self._children]
            await asyncio.gather(*(child.stop(seconds) for child in members))

    def kill(self) -> None:
        """Everything at once: the user does not want to wait."""
        for child in self._children.values():
            child.kill()
