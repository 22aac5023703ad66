"""Frames that fall due together go out together: one write, however many events."""

from collections.abc import Iterator

import msgspec

from services.simulator.core.frames import Frame


class Burst(msgspec.Struct, frozen=True, kw_only=True):
    """Frames with no silence between them. made, searches: as of its last frame.

    begins: message_start is among them. last: nothing follows.
    """

    wait_ms: int
    data: bytes
    frames: int
    made: int
    searches: int
    begins: bool
    last: bool


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """How far an answer has come. begun: its first event is out, so that its input is billed."""

    chunks: int = 0
    made: int = 0
    searches: int = 0
    begun: bool = False

    def after(self, burst: Burst) -> "Sent":
        """How far it has come once this burst is out."""
        return Sent(
            chunks=self.chunks + burst.frames,
            made=burst.made,
            searches=burst.searches,
            begun=self.begun or burst.begins,
        )


def bursts(frames: tuple[Frame, ...]) -> Iterator[Burst]:
    """The frames, joined where nothing separates them."""
    start = 0
    for at in range(1, len(frames) + 1):
        if at == len(frames) or frames[at].wait_ms:
            group, end = frames[start:at], frames[at - 1]
            yield Burst(
                wait_ms=group[0].wait_ms,
                data=b"".join(frame.data for frame in group),
                frames=len(group),
                made=end.made,
                searches=end.searches,
                begins=any(frame.mark == "start" for frame in group),
                last=at == len(frames),
            )
            start = at
