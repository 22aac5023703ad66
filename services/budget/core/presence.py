"""Which attempts are still in flight, as the edges' inventories tell. Not in the ledger: the edges tell it again."""

from collections.abc import Iterator, Mapping

from services.budget.core.state import Hold
from shared.contracts.edge import EdgeStatus
from shared.contracts.message import Micros


class Presence:
    """absent: how long a hold may go unlisted. An edge that was not heard for as long is gone."""

    def __init__(self, absent_micros: Micros, now: Micros) -> None:
        self._absent = absent_micros
        self._since = now
        self._listed: dict[str, Micros] = {}
        self._edges: dict[str, tuple[int, Micros]] = {}

    def heard(self, status: EdgeStatus, now: Micros) -> bool:
        """Take an inventory in; True when this edge, or this start of it, is new to us."""
        epoch, _ = self._edges.get(status.edge, (-1, 0))
        self._edges[status.edge] = (status.epoch, now)
        for rid in status.live:
            self._listed[rid] = now
        return epoch != status.epoch

    def expect(self, edge: str, now: Micros) -> None:
        """An edge that is registered but was not heard yet."""
        self._edges.setdefault(edge, (-1, now))

    def lives(self, edge: str, now: Micros) -> bool:
        _, at = self._edges.get(edge, (0, 0))
        return now - at <= self._absent

    def edges(self, now: Micros) -> list[str]:
        return [edge for edge in self._edges if self.lives(edge, now)]

    def spare(self, now: Micros) -> None:
        """Nobody could tell us anything until now, so nothing follows from the silence."""
        self._since = now

    def forgotten(self, holds: Mapping[str, Hold], now: Micros) -> Iterator[str]:
        """rids of holds that no inventory has listed for too long."""
        self._listed = {rid: at for rid, at in self._listed.items() if rid in holds}
        for rid, hold in holds.items():
            if hold.held.lease:  # it may be old when it is told of: silence counts from where we first knew of it
                self._listed.setdefault(rid, now)
            if now - max(self._since, self._listed.get(rid, hold.held.admitted_at)) > self._absent:
                yield rid
