"""The side scanner: reads usage from the passing bytes of an answer without changing or delaying them."""

from typing import Protocol

import msgspec

from services.edge.core import sse
from services.edge.core import usage as usages
from services.edge.core.collected import Collected
from services.edge.core.observed import Observed
from services.edge.core.usage import Asked, Counts, Usage
from shared.contracts.edge import Line

LARGEST_EVENT = 16 * 1024 * 1024  # beyond it an event passes unread: memory is bounded, usage is estimated


class Release(msgspec.Struct, frozen=True):
    """data: what may go to the client now. ended: the answer is complete; its end waits in `Meter.held` for the spool."""

    data: bytes
    ended: bool


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream stands after the bytes released so far.

    at_boundary: nothing of an unfinished event is out. open_text: index of the open text block, else -1.
    last_bytes: of an unfinished event, at most 3. started: message_start is out.
    """

    at_boundary: bool = True
    open_text: int = -1
    last_bytes: bytes = b""
    started: bool = False


class Meter(Protocol):
    """Reads one answer. feed → … → usage; `held` once the end may go out (ended, or upstream closed cleanly)."""

    @property
    def error_type(self) -> str:
        """Of an error that upstream sent, else empty."""

    def feed(self, data: bytes) -> Release: ...
    def held(self) -> bytes:
        """What has been kept back. Send it after `spool.end`, or drop it when the answer is cut or broken."""

    def tail(self) -> Tail: ...
    def usage(self) -> Usage:
        """At any time; estimated unless the provider's final report has passed."""

    @property
    def input_tokens(self) -> int:
        """Of all input classes as message_start reports them; 0 before it."""

    @property
    def output_tokens(self) -> int:
        """Made so far, as far as it shows; 0 for what does not stream."""

    @property
    def hides(self) -> bool:
        """Output is made that does not show."""


class StreamMeter:
    """Meter of server-sent events, for any split of the bytes."""

    def __init__(self, asked: Asked) -> None:
        self._seen = Observed(asked)
        self._rest = bytearray()  # the unfinished event
        self._out = 0  # how much of it the client already has
        self._held = b""
        self._carriage = False
        self._started = False

    @property
    def error_type(self) -> str:
        """Of an error event upstream sent, else empty."""
        return self._seen.error_type

    @property
    def input_tokens(self) -> int:
        return self._seen.input_tokens

    @property
    def output_tokens(self) -> int:
        return self._seen.output_tokens

    @property
    def hides(self) -> bool:
        return self._seen.hides

    def feed(self, data: bytes) -> Release:
        """Everything may go on at once but the event that ends the answer, and what follows it."""
        if self._seen.ended:
            self._held += data
            return Release(b"", True)
        self._carriage = self._carriage or b"\r" in data
        buffer: bytes | bytearray = data
        if self._rest:
            self._rest += data
            buffer = self._rest
        done = self._seen.read(buffer, self._carriage)
        if self._seen.ended:
            return self._end(buffer, done)
        return self._go_on(buffer, done, data)

    def _go_on(self, buffer: bytes | bytearray, done: int, data: bytes) -> Release:
        """done: where the unfinished event begins."""
        self._started = self._started or done > 0
        if done == len(buffer) and buffer is data:
            return Release(data, False)  # whole events came: the common case copies nothing
        if done == 0 and self._in_a_long_line(data):
            self._out = len(self._rest)
            return Release(data, False)
        rest = bytes(buffer[done:])
        keep = sse.may_be_terminal(rest)
        if len(rest) > LARGEST_EVENT:
            rest, keep = rest[-2:], -1  # enough to see its end
        cut = len(buffer) if keep < 0 else done + keep
        release = bytes(buffer[self._out : cut])
        self._rest, self._out = bytearray(rest), max(0, len(rest) - (len(buffer) - cut))
        return Release(release, False)

    def _in_a_long_line(self, data: bytes) -> bool:
        """The data only makes a line longer that is already known not to end the answer: no need to look again."""
        before = len(self._rest) - len(data)
        return (
            0 < before == self._out
            and len(self._rest) <= LARGEST_EVENT
            and bytes(self._rest[before - 1 : before]) not in (b"\n", b"\r")
            and b"\n" not in data
            and b"\r" not in data
        )

    def _end(self, buffer: bytes | bytearray, start: int) -> Release:
        """start: of the terminal event."""
        start = max(start, self._out)
        release, self._held = bytes(buffer[self._out : start]), bytes(buffer[start:])
        self._started = self._started or bool(release)
        self._rest, self._out = bytearray(), 0
        return Release(release, True)

    def held(self) -> bytes:
        return self._held or bytes(self._rest[self._out :])

    def tail(self) -> Tail:
        return Tail(
            at_boundary=self._out == 0,
            open_text=self._seen.open_text,
            last_bytes=bytes(self._rest[max(0, self._out - 3) : self._out]),
            started=self._started,
        )

    def usage(self) -> Usage:
        return self._seen.usage()


class _Answer(msgspec.Struct, frozen=True):
    """The parts of a whole message, or of an error, that are read."""

    model: str = ""
    stop_reason: str | None = None
    usage: Counts | None = None
    content: msgspec.Raw = msgspec.Raw(b"[]")
    error: dict[str, msgspec.Raw] | None = None


_answer = msgspec.json.Decoder(_Answer)
_text = msgspec.json.Decoder(str)


class JsonMeter:
    """Meter of an answer that does not stream; the last byte waits, since only it makes the JSON whole."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._collected = Collected()
        self._last = b""

    def feed(self, data: bytes) -> Release:
        self._collected.add(data)
        release, self._last = self._last + data[:-1], data[-1:] or self._last
        return Release(release if data else b"", False)

    def held(self) -> bytes:
        return self._last

    def tail(self) -> Tail:
        return Tail(at_boundary=self._collected.size <= 1, started=self._collected.size > 1)

    @property
    def error_type(self) -> str:
        """Of an error answer, else empty."""
        answer = self._read()
        try:
            return _text.decode(answer.error["type"])[:128] if answer and answer.error else ""
        except (KeyError, msgspec.DecodeError):
            return ""

    @property
    def input_tokens(self) -> int:
        return 0

    @property
    def output_tokens(self) -> int:
        """It has been made, and is held at its bound."""
        return 0

    @property
    def hides(self) -> bool:
        return False

    def _read(self) -> _Answer | None:
        try:
            return _answer.decode(self._collected.document())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def usage(self) -> Usage:
        """Estimated where it was cut off, or its usage cannot be read. An error object is complete as it is, and free."""
        answer = self._read() or _Answer()
        counts = answer.usage or {}
        if answer.error is not None and not counts:
            return usages.NOTHING
        free = answer.stop_reason == "refusal" and bytes(answer.content).strip() == b"[]"
        complete = free or usages.complete(counts)
        return Usage(
            lines=() if free else self._lines(counts, answer.model[: usages.LONGEST_TEXT], complete),
            provider_usage=usages.kept(counts),
            response_model=answer.model[: usages.LONGEST_TEXT],
            stop_reason=(answer.stop_reason or "")[: usages.LONGEST_TEXT],
            unknown_counters=usages.unknown_counters(counts),
            estimated=not complete,
        )

    def _lines(self, counts: Counts, model: str, complete: bool) -> tuple[Line, ...]:
        if complete:
            return usages.of(counts, model or self._asked.model, self._asked)
        return usages.estimate(counts, model, self._asked, -(-self._collected.size // usages.BYTES_PER_TOKEN))


def meter_for(content_type: bytes, status: int, asked: Asked) -> StreamMeter | JsonMeter:
    """content_type: of the upstream's answer, which decides, not what the request asked for."""
    if status == 200 and content_type.lower().startswith(b"text/event-stream"):
        return StreamMeter(asked)
    return JsonMeter(asked)
