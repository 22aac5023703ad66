"""Keeps a Directory current from CONFIG."""

import asyncio
from collections.abc import Callable

from shared.bus.connection import Bus
from shared.contracts.config import ConfigChanged
from shared.contracts.message import Decoder
from shared.contracts.streams import CONFIG
from shared.directory import Directory

_changed = Decoder(ConfigChanged)


class ConfigFollower:
    """Tails CONFIG into `directory`. `on_change` is called after each completed change set."""

    def __init__(self, bus: Bus, on_change: Callable[[ConfigChanged], None] | None = None) -> None:
        self.directory = Directory()
        self._bus = bus
        self._on_change = on_change
        self._arrived = asyncio.Event()
        self._seq = 0

    async def run(self) -> None:
        """For ever; start it as a task."""
        async for messages in self._bus.follow(CONFIG):
            for stored in messages:
                change = _changed.decode(stored.data)
                if self.directory.apply(change) and self._on_change:
                    self._on_change(change)
            self._seq = messages[-1].seq
            self._arrived.set()  # wakes all who wait; the next ones wait for the next arrival
            self._arrived = asyncio.Event()

    async def caught_up(self) -> None:
        """Return once everything that CONFIG held at the call is applied."""
        end = (await self._bus.end(CONFIG)).seq
        while self._seq < end:
            await self._arrived.wait()

    async def reached(self, config_rev: int) -> None:
        """Return once this revision is applied."""
        while self.directory.config_rev < config_rev:
            await self._arrived.wait()
