"""One chain in AUDIT: reading its end and appending to it, fenced."""

import asyncio

import structlog

from services.audit.core.chain import Tail, tail_of, unfinished
from shared.bus import Bus
from shared.contracts.audit import AUDIT_APPEND
from shared.contracts.streams import AUDIT
from shared.errors import Overtaken, Unavailable

log = structlog.get_logger()

RETRY_SECONDS = 0.25
LOOK_BACK = 400  # messages of AUDIT; more than one message of a source log can ever be cut into


class Chain:
    """The pages of one chain. There is one writer: a second one is Overtaken."""

    def __init__(self, bus: Bus, chain_id: str) -> None:
        self.chain_id = chain_id
        self._bus, self._subject = bus, AUDIT_APPEND.format(chain=chain_id)
        self._last_seq = 0

    async def resume(self) -> tuple[Tail, dict[tuple[str, int], int]]:
        """The tail, and of messages cut in two the entries that are in already."""
        last = await self._bus.last(AUDIT, self._subject)
        if last is None:
            return Tail(), {}
        self._last_seq = last.seq
        recent: list[bytes] = []
        async for messages in self._bus.follow(AUDIT, self._subject, after=max(0, last.seq - LOOK_BACK)):
            recent += [stored.data for stored in messages if stored.seq <= last.seq]
            if messages[-1].seq >= last.seq:
                break
        return tail_of(last.data), unfinished(recent)

    async def append(self, data: bytes, tail: Tail) -> None:
        """Until it is stored, once, whatever the broker goes through. Raises Overtaken when another writer lives."""
        msg_id = f"audit:{self.chain_id}:{tail.seq}:{tail.hash.hex()[:16]}"
        while True:
            try:
                self._last_seq = await self._bus.append(
                    self._subject, data, msg_id=msg_id, expected_last_seq=self._last_seq
                )
                return
            except Overtaken:
                if await self._stored(data):
                    return
                raise
            except Unavailable:
                log.warning("audit.append_delayed", page=tail.seq)
                await asyncio.sleep(RETRY_SECONDS)

    async def _stored(self, data: bytes) -> bool:
        """Whether an append whose answer was lost is what overtook us."""
        last = await self._bus.last(AUDIT, self._subject)
        if last is None or last.data != data:
            return False
        self._last_seq = last.seq
        return True
