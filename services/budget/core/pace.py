"""How many streams may begin in two seconds on less than their bound.

A hold of what is usual rests on calls being unlike each other. Many that begin at one moment may all be the same unusual
call, and by the time that shows, all of them have spent. So what those of the last two seconds could still ask for beyond their
holds stays within what the budget has left; others begin a moment later, when the first have shown what they are.
"""

from collections import deque
from collections.abc import Iterable

import msgspec

from shared.contracts.message import Micros, NanoUSD

WINDOW_MICROS = 2_000_000


class _Begun(msgspec.Struct):
    """Streams of the last two seconds, and the sum of what they may still ask for."""

    streams: deque[tuple[Micros, NanoUSD]]
    beyond: NanoUSD = 0


class Pace:
    """Not in the ledger: a new owner begins with nothing seen."""

    def __init__(self) -> None:
        self._began: dict[str, _Begun] = {}

    def beyond(self, budget_id: str, now: Micros) -> NanoUSD:
        """What the streams that have just begun may still ask for."""
        began = self._began.get(budget_id)
        if began is None:
            return 0
        streams = began.streams
        while streams and streams[0][0] <= now - WINDOW_MICROS:
            began.beyond -= streams.popleft()[1]
        if not streams:
            del self._began[budget_id]
            return 0
        return began.beyond

    def begin(self, budget_ids: Iterable[str], beyond: NanoUSD, now: Micros) -> None:
        for budget_id in budget_ids:
            began = self._began.get(budget_id)
            if began is None:
                began = self._began[budget_id] = _Begun(deque())
            began.streams.append((now, beyond))
            began.beyond += beyond

    def forget(self, now: Micros) -> None:
        """Once a second, so that budgets which nobody uses any more leave nothing behind."""
        for budget_id in list(self._began):
            self.beyond(budget_id, now)
