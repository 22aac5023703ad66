"""Writes CONFIG: one change set at a time, fenced, whole."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from services.console.core.changes import ChangeSet, messages
from shared.bus import Bus
from shared.bus.config import ConfigFollower
from shared.clock import Clock
from shared.contracts.config import CONFIG_CHANGED, ConfigChanged
from shared.contracts.message import Decoder, encode
from shared.contracts.streams import CONFIG
from shared.directory import Directory
from shared.errors import Overtaken, Unavailable

log = structlog.get_logger()

ATTEMPTS = 8  # against another console that writes at the same time, or a broker that is coming back
CATCH_UP_SECONDS = 5.0
PAUSE_SECONDS = 0.25

_changed = Decoder(ConfigChanged)


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """config_rev: the revision that holds the changes; the one there was where nothing changed."""

    config_rev: int
    changes: ChangeSet


class ConfigWriter:
    """The only writer of CONFIG in this process; other consoles are kept apart by the expected sequence."""

    def __init__(self, bus: Bus, follower: ConfigFollower, clock: Clock) -> None:
        self._bus, self._follower, self._clock = bus, follower, clock
        self._lock = asyncio.Lock()
        self._seen_seq = 0  # of CONFIG: what the directory surely holds

    @property
    def directory(self) -> Directory:
        return self._follower.directory

    async def commit(self, decide: Callable[[Directory], ChangeSet], actor: str, reason: str = "") -> Committed:
        """Decide on the newest directory and write; decide again when another writer was first.

        Returns once this process sees the change itself. Raises what `decide` raises, or Unavailable("bus").
        """
        async with self._lock:
            for _ in range(ATTEMPTS):
                last = await self._bus.last(CONFIG, CONFIG_CHANGED)
                await self._catch_up(last.seq if last else 0)
                changes = decide(self.directory)
                if changes.empty:
                    return Committed(config_rev=self.directory.config_rev, changes=changes)
                # not the directory's revision: a set that broke off has used up one more
                config_rev = (_changed.decode(last.data).config_rev if last else 0) + 1
                try:
                    await self._write(
                        messages(changes, config_rev, self._clock(), actor, reason), last.seq if last else 0
                    )
                except Overtaken:
                    log.info("console.config_overtaken", config_rev=config_rev)
                    continue
                return Committed(config_rev=config_rev, changes=changes)
        raise Unavailable("config")

    async def _write(self, parts: list[ConfigChanged], last_seq: int) -> None:
        """Fold our own change in at once: the fence has shown that nothing stands between, and the follower may lag."""
        for index, part in enumerate(parts):
            last_seq = await self._append(encode(part), f"config:{part.config_rev}:{part.at}:{index}", last_seq)
        for part in parts:
            self.directory.apply(part)
        self._seen_seq = last_seq

    async def _append(self, data: bytes, msg_id: str, last_seq: int) -> int:
        """Unavailable leaves open whether it was stored: the last message tells, before it is tried again."""
        for _ in range(ATTEMPTS):
            try:
                return await self._bus.append(CONFIG_CHANGED, data, msg_id=msg_id, expected_last_seq=last_seq)
            except (Unavailable, Overtaken) as error:
                await asyncio.sleep(PAUSE_SECONDS if isinstance(error, Unavailable) else 0)
                if (found := await self._stored(data)) is not None:
                    return found
                if isinstance(error, Overtaken):
                    raise
        raise Unavailable("bus")

    async def _stored(self, data: bytes) -> int | None:
        try:
            last = await self._bus.last(CONFIG, CONFIG_CHANGED)
        except Unavailable:
            return None
        return last.seq if last and last.data == data else None

    async def _catch_up(self, seq: int) -> None:
        if seq <= self._seen_seq:
            return
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._follower.caught_up()
        except TimeoutError:
            raise Unavailable("bus") from None
        self._seen_seq = seq
