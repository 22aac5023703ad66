"""How a stream goes wrong: silence, novelties, and the places where it breaks."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from services.simulator.core import directives, errors
from services.simulator.core.directives import Directives
from services.simulator.core.frames import PING, UNKNOWN, Frame, event

Outcome = Literal["complete", "client_gone", "reset", "error_event", "clean_end", "refused"]


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What is really sent, and how it ends: complete, reset, error_event or clean_end."""

    frames: tuple[Frame, ...]
    outcome: Outcome = "complete"


def course(frames: tuple[Frame, ...], wish: Directives, request_id: str) -> Course:
    """Apply what the directives ask for to a good stream. The first of error event, reset and clean end counts."""
    line = _slow(_novel(list(frames), wish), wish)
    if wish.error_event:
        at = place(line, wish.error_event)
        data = event("error", errors.event_error(wish, request_id))
        end = Frame(data=data, mark="error", made=_made(line, at), searches=_searches(line, at))
        return Course(frames=(*line[:at], end), outcome="error_event")
    if wish.reset:
        where = directives.place(wish.reset)
        return Course(frames=tuple(_cut(line, where)), outcome="reset")
    if wish.clean_end:
        return Course(frames=tuple(_short(line, wish.clean_end)), outcome="clean_end")
    return Course(frames=tuple(line))


def place(line: list[Frame], where: str) -> int:
    """How many frames precede a place. Blocks are told by their size: `in_block` is half through the longest."""
    marks = [frame.mark for frame in line]
    if where in ("before_headers", "after_headers", "before_start"):
        return 0
    if where == "after_start":
        return marks.index("open") if "open" in marks else marks.index("message_delta")
    if where == "before_stop":
        return marks.index("message_delta")
    if where == "after_block":
        return marks.index("close") + 1 if "close" in marks else marks.index("message_delta")
    return _middle(marks)


def _middle(marks: Sequence[str]) -> int:
    """The index after half of the deltas of the longest block."""
    best, start = (0, marks.index("message_delta")), 0
    for at, mark in enumerate(marks):
        if mark == "open":
            start = at
        elif mark == "close" and at - start > best[0]:
            best = (at - start, start + 1 + (at - start) // 2)
    return best[1]


def _made(line: list[Frame], at: int) -> int:
    return line[at - 1].made if at else 0


def _searches(line: list[Frame], at: int) -> int:
    return line[at - 1].searches if at else 0


def _cut(line: list[Frame], where: str | int) -> list[Frame]:
    """Frames before a place, or so many bytes of them."""
    if isinstance(where, str):
        return line[: place(line, where)]
    kept, left = list[Frame](), where
    for at, frame in enumerate(line):
        if len(frame.data) > left:
            made, searches = _made(line, at), _searches(line, at)
            part = msgspec.structs.replace(frame, data=frame.data[:left], mark="other", made=made, searches=searches)
            return [*kept, part] if left else kept
        kept.append(frame)
        left -= len(frame.data)
    return kept


def _short(line: list[Frame], how: str) -> list[Frame]:
    if how == "no_stop":
        return line[:-1]
    return line[: place(line, "before_stop" if how == "no_delta" else "after_start")]


def _novel(line: list[Frame], wish: Directives) -> list[Frame]:
    if not wish.unknown_event:
        return line
    return [*line[:1], msgspec.structs.replace(line[0], data=UNKNOWN, mark="other", wait_ms=0), *line[1:]]


def _slow(line: list[Frame], wish: Directives) -> list[Frame]:
    """Silence before the first content, broken by pings where they are asked for."""
    if not wish.slow:
        return line
    at, left, found = place(line, "after_start"), round(wish.slow * 1_000), line[:]
    step, pings = round(wish.pings * 1_000), list[Frame]()
    while step and left > step:
        pings.append(Frame(data=PING, mark="ping", wait_ms=step, made=_made(line, at), searches=_searches(line, at)))
        left -= step
    found[at] = msgspec.structs.replace(found[at], wait_ms=found[at].wait_ms + left)
    return [*found[:at], *pings, *found[at:]]
