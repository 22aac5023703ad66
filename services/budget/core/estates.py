"""Leases of edges that died: what is left of one is free once all that was drawn on it is booked.

That is so when the edge's next start has delivered the records of the life before, and the ledger has applied them. An edge
that never comes back may have burnt all of it: what may have been burnt is never lent again. Not in the ledger.
"""

from collections.abc import Iterator, Mapping

import msgspec

from services.budget.core.state import Lease
from shared.contracts.edge import EdgeStatus


class Delivered(msgspec.Struct):
    """recorded: last record of USAGE when the edge had delivered; priced: a record of PRICED that comes after it. 0: not known."""

    recorded: int = 0
    priced: int = 0


class Estates:
    """delivered: by edge, the last of its lives of which every record has been delivered."""

    def __init__(self) -> None:
        self._delivered: dict[str, int] = {}
        self._waiting: dict[str, Delivered] = {}

    def heard(self, status: EdgeStatus) -> None:
        """Only the next start of an edge can know; it tells again with every status."""
        if status.delivered_epoch > self._delivered.get(status.edge, 0):
            self._delivered[status.edge] = status.delivered_epoch

    def concerns(self, leases: Mapping[str, Lease]) -> bool:
        """Whether any edge has delivered what is behind one of these."""
        return any(self._has_delivered(lease) for lease in leases.values())

    def _has_delivered(self, lease: Lease) -> bool:
        return lease.leased.epoch <= self._delivered.get(lease.leased.edge, 0)

    def settled(
        self, leases: Mapping[str, Lease], recorded: int, priced: tuple[int, int], applied: int
    ) -> Iterator[str]:
        """Ids of leases to free. recorded: last of USAGE now. priced: last of PRICED, and the record of USAGE in it.

        applied: of PRICED, in the ledger. USAGE is looked at after the edge has delivered, so nothing of it comes later.
        """
        for name in self._waiting.keys() - leases.keys():
            del self._waiting[name]
        last, its_usage = priced
        for name, lease in list(leases.items()):
            if not self._has_delivered(lease):
                continue
            delivered = self._waiting.setdefault(name, Delivered(recorded))
            if not delivered.priced and its_usage >= delivered.recorded:
                delivered.priced = last
            if its_usage >= delivered.recorded and applied >= delivered.priced:
                yield name
