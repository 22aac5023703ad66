"""How far each log was read, in the bucket READERS."""

import msgspec
import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from shared.bus import Bus
from shared.contracts.streams import READERS, Position
from shared.errors import Unavailable

_position = msgspec.msgpack.Decoder(Position)
_AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class Positions:
    """Those of one reader, by log. Both raise Unavailable("bus")."""

    def __init__(self, bus: Bus, reader: str) -> None:
        self._bus, self._reader = bus, reader
        self._bucket: KeyValue | None = None

    async def load(self, log: str) -> Position | None:
        """None for a reader that has never read it."""
        bucket = await self._open()
        try:
            entry = await bucket.get(f"{self._reader}.{log}")
        except nats.js.errors.KeyNotFoundError:
            return None
        except _AWAY as error:
            raise Unavailable("bus") from error
        return _position.decode(entry.value or b"")

    async def store(self, log: str, position: Position) -> None:
        bucket = await self._open()
        try:
            await bucket.put(f"{self._reader}.{log}", msgspec.msgpack.encode(position))
        except _AWAY as error:
            raise Unavailable("bus") from error

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.bucket(READERS)
        return self._bucket
