"""Who has a shard, as OWNERS tells. A hint only: it says when to try; the expected sequence of LEDGER says who may write."""

import msgspec
import nats.errors
import nats.js.errors
from nats.js.kv import KeyValue

from shared.bus import Bus
from shared.contracts.budget import ShardOwned
from shared.contracts.message import Decoder, encode
from shared.contracts.streams import OWNERS
from shared.errors import Overtaken, Unavailable

_owned = Decoder(ShardOwned)
_AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class Lease:
    """One shard's key in OWNERS, as this incarnation of a replica sees it. All but `free` raise Unavailable("bus")."""

    def __init__(self, bus: Bus, shard: str, incarnation: str) -> None:
        self._bus = bus
        self._shard = shard
        self._incarnation = incarnation
        self._bucket: KeyValue | None = None
        self.revision = 0

    async def look(self) -> ShardOwned | None:
        """Who has it, None when nobody does; `revision` tells one look from the next."""
        bucket = await self._open()
        try:
            entry = await bucket.get(self._shard)
        except nats.js.errors.KeyNotFoundError:
            self.revision = 0
            return None
        except _AWAY as error:
            raise Unavailable("bus") from error
        self.revision = entry.revision or 0
        owned = _owned.decode(entry.value or b"")
        return owned if owned.incarnation else None

    async def write(self, owned: ShardOwned) -> None:
        """Over what was last seen or written here. Raises Overtaken when another one has written since."""
        bucket = await self._open()
        try:
            self.revision = await bucket.update(self._shard, encode(owned), last=self.revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            found = await self.look()  # an answer of ours that was lost looks the same
            if found is None or found.incarnation != self._incarnation:
                raise Overtaken(f"the lease on shard {self._shard}") from None
        except _AWAY as error:
            raise Unavailable("bus") from error

    async def free(self) -> None:
        """After a clean end, if it is ours: who stands by need not wait. Never fails: else they wait a little longer."""
        try:
            held = await self.look()
            if held and held.incarnation == self._incarnation:
                await self.write(msgspec.structs.replace(held, replica="", incarnation=""))
        except (Unavailable, Overtaken):
            return

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._bus.bucket(OWNERS)
        return self._bucket
