"""Checks a chain from its first page to its last; `sluicegate audit verify` calls it. Needs the bus, but no audit."""

from services.audit.core.chain import Broken, Verified, Verifier
from shared.bus import Bus
from shared.contracts.audit import AUDIT_APPEND
from shared.contracts.streams import AUDIT


async def verify_stream(bus: Bus, chain_id: str = "0", head: bytes = b"") -> Verified | Broken:
    """head: SHA-256 of the page that must be the last, from an earlier check; empty: any. Raises Unavailable."""
    subject = AUDIT_APPEND.format(chain=chain_id)
    verifier = Verifier(chain_id)
    last = await bus.last(AUDIT, subject)
    if last is None:
        return verifier.result(head)
    async for messages in bus.follow(AUDIT, subject):
        for stored in messages:
            if stored.seq <= last.seq:
                verifier.feed(stored.data)
        if messages[-1].seq >= last.seq:
            break
    return verifier.result(head)
