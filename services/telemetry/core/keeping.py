"""From where to read on, and what is worth another try."""

from collections.abc import Sequence

import msgspec

from shared.contracts.message import Micros
from shared.contracts.streams import Position


class Resumed(msgspec.Struct, frozen=True):
    """Where to read on. missed: what of it was read before is not known, so that all there is was left out."""

    position: Position
    missed: bool = False


def resume(stored: Position | None, end: Position) -> Resumed:
    """end: of the log as it is now. The first start, and one on another log than before, begin there: nobody wants
    yesterday's traces as of now.
    """
    if stored is None:
        return Resumed(end)
    if stored.log_id != end.log_id or stored.seq > end.seq:
        return Resumed(end, missed=True)
    return Resumed(stored)


def young(ends_ns: Sequence[int], now: Micros, keep_seconds: int) -> list[int]:
    """Indices of the spans that ended within the last keep_seconds."""
    oldest = (now - keep_seconds * 1_000_000) * 1_000
    return [index for index, end in enumerate(ends_ns) if end >= oldest]
