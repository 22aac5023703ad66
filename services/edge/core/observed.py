"""What the events of one stream have shown so far."""

import msgspec

from services.edge.core import sse
from services.edge.core import usage as usages
from services.edge.core.usage import Asked, Counts, Usage

DELTA = b"event: content_block_delta\ndata: "
_STOP = b"\n\nevent: content_block_stop\n"
_DELTA_OF = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"%s","%s":""}}\n\n'
)
_KINDS = tuple(
    (b'"delta":{"type":"%s"' % kind, len(_DELTA_OF % (kind, field)))
    for kind, field in (
        (b"text_delta", b"text"),
        (b"input_json_delta", b"partial_json"),
        (b"thinking_delta", b"thinking"),
    )
)
"""Mark of each kind of delta whose payload is output, and how many bytes of such an event are not payload.

A mark cannot stand inside a string: there its quotes are escaped.
"""
_THOUGHT = _KINDS[-1][0]
_THINKING = ("thinking", "redacted_thinking")


class _Message(msgspec.Struct, frozen=True):
    model: str = ""
    usage: Counts | None = None


class _Start(msgspec.Struct, frozen=True):
    message: _Message


class _Block(msgspec.Struct, frozen=True):
    type: str = ""
    name: str = ""
    text: str = ""
    model: str = ""


class _BlockStart(msgspec.Struct, frozen=True):
    index: int
    content_block: _Block


class _BlockStop(msgspec.Struct, frozen=True):
    index: int


class _Thought(msgspec.Struct, frozen=True):
    thinking: str = ""
    estimated_tokens: int | None = None


class _ThoughtDelta(msgspec.Struct, frozen=True):
    delta: _Thought


class _Stop(msgspec.Struct, frozen=True):
    stop_reason: str | None = None


class _MessageDelta(msgspec.Struct, frozen=True):
    delta: _Stop = _Stop()
    usage: Counts | None = None


class _Error(msgspec.Struct, frozen=True):
    type: str = "api_error"


class _ErrorEvent(msgspec.Struct, frozen=True):
    error: _Error = _Error()


class _Typed(msgspec.Struct, frozen=True):
    type: str = ""


_start = msgspec.json.Decoder(_Start)
_block_start = msgspec.json.Decoder(_BlockStart)
_block_stop = msgspec.json.Decoder(_BlockStop)
_thought = msgspec.json.Decoder(_ThoughtDelta)
_message_delta = msgspec.json.Decoder(_MessageDelta)
_error = msgspec.json.Decoder(_ErrorEvent)
_typed = msgspec.json.Decoder(_Typed)


class Observed:
    """Fed with complete events; deltas, nearly all of a stream, are counted without being parsed."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._model = ""
        self._counts: Counts = {}
        self._payload_bytes = self._told = 0  # told: output by the provider's own figure
        self._thinking_tokens = 0
        self._open: dict[int, str] = {}
        self._thoughts: dict[int, int] = {}  # open blocks of thinking, and what was seen when each began
        self._hidden = False
        self._blocks = 0
        self._begun = self._counted = self._reported = False
        self._stop_reason = ""
        self.ended = False
        self.error_type = ""

    def read(self, data: bytes | bytearray, carriage: bool) -> int:
        """Take in every complete event; returns where the unfinished one, or the terminal one, begins."""
        at = 0
        while True:
            if not carriage and data.startswith(DELTA, at):
                at = self._run(data, at)
            end = sse.end_of_event(data, at, carriage)
            if end < 0:
                return at
            self._event(bytes(data[at:end]))
            if self.ended:
                return at
            at = end

    def _run(self, data: bytes | bytearray, start: int) -> int:
        """Count the deltas from `start` up to the end of their block in one go; returns where they end.

        Only where every event bears the mark of a delta; else nothing is done, and they are read singly. Each search
        costs as much as forwarding the bytes, so no more of them are made than it takes.
        """
        stop = data.find(_STOP, start)
        end = (stop if stop >= 0 else data.rfind(b"\n\n", start)) + 2
        if end <= start + 1:
            return start
        run = data[start:end]
        left, frame = run.count(b"\n\nevent: ") + 1, 0
        for mark, size in _KINDS:
            found = run.count(mark) if left else 0
            left, frame = left - found, frame + found * size
            if found and mark is _THOUGHT and b'"estimated_tokens"' in run:
                return start
        if left:
            return start
        self._payload_bytes += len(run) - frame
        return end

    def _event(self, event: bytes) -> None:
        try:
            if event.startswith(DELTA):
                self._delta(event)
                return
            name, data = sse.fields(event)
            self._take(name or _typed.decode(data).type if data else "", data, event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # it passes as it is; without its figures the usage stays an estimate

    def _take(self, name: str, data: bytes, event: bytes) -> None:
        match name:
            case "content_block_delta":
                self._delta(event)
            case "message_start":
                self._begun = True
                message = _start.decode(data).message
                self._model = message.model[: usages.LONGEST_TEXT]
                self._merge(message.usage or {})
            case "content_block_start":
                self._open_block(_block_start.decode(data))
            case "content_block_stop":
                self._close_block(_block_stop.decode(data).index)
            case "message_delta":
                self._report(_message_delta.decode(data))
            case "message_stop":
                self.ended = True
                self._reported = self._reported or (self._counted and bool(self._stop_reason))
            case "error":
                self.ended = True
                self.error_type = "api_error"
                self.error_type = _error.decode(data).error.type[:128]

    def _merge(self, counts: Counts) -> None:
        usages.merge(self._counts, counts)
        self._told = usages.number(self._counts, "output_tokens")

    def _open_block(self, start: _BlockStart) -> None:
        block = start.content_block
        self._open[start.index] = block.type
        if block.type in _THINKING:
            self._thoughts[start.index] = self._payload_bytes + self._thinking_tokens
        self._begun = True
        self._blocks += 1
        self._payload_bytes += len(block.text.encode()) + len(block.name)
        if block.type == "fallback" and block.model:
            self._model = block.model[: usages.LONGEST_TEXT]

    def _close_block(self, index: int) -> None:
        self._open.pop(index, None)
        self._hidden = self._hidden or self._unseen(self._thoughts.pop(index, -1))

    def _unseen(self, before: int) -> bool:
        """before: what was seen when a block of thinking began."""
        return before == self._payload_bytes + self._thinking_tokens

    def _delta(self, event: bytes) -> None:
        """One delta on its own. Signatures and citations are no output."""
        if b'"estimated_tokens"' in event:
            thought = _thought.decode(sse.fields(event)[1]).delta
            self._thinking_tokens += max(0, thought.estimated_tokens or 0)
            return
        for mark, frame in _KINDS:
            if mark in event:
                self._payload_bytes += len(event) - frame
                return

    def _report(self, delta: _MessageDelta) -> None:
        if delta.delta.stop_reason:
            self._stop_reason = delta.delta.stop_reason[:128]
        if delta.usage:
            self._merge(delta.usage)
            counted = delta.usage.get("output_tokens") is not None
            self._counted = self._counted or counted
            self._reported = bool(self._stop_reason) and counted

    @property
    def open_text(self) -> int:
        """Index of the open text block, -1 without one."""
        return next((index for index, kind in self._open.items() if kind == "text"), -1)

    @property
    def hides(self) -> bool:
        """A thought has passed unseen, or is being had: no text and no estimate of it has come."""
        return self._hidden or any(self._unseen(before) for before in self._thoughts.values())

    @property
    def input_tokens(self) -> int:
        """Of all input classes as reported so far."""
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return sum(usages.number(self._counts, name) for name in names)

    @property
    def output_tokens(self) -> int:
        """Made so far: the provider's figure or our estimate, whichever is more."""
        payload = self._payload_bytes
        estimate = (-(-payload // usages.BYTES_PER_TOKEN) if payload > 0 else 0) + self._thinking_tokens
        return estimate if estimate > self._told else self._told

    def usage(self) -> Usage:
        """Rests on the provider's final report where it has passed. What was refused before any output is free."""
        if self.error_type and not self._begun:
            return usages.NOTHING
        model = self._model or self._asked.model
        free = self._reported and self._stop_reason == "refusal" and not self._blocks
        complete = self._reported and usages.complete(self._counts)
        lines = (
            usages.of(self._counts, model, self._asked)
            if complete
            else usages.estimate(self._counts, model, self._asked, self.output_tokens)
        )
        return Usage(
            lines=() if free else lines,
            provider_usage=usages.kept(self._counts),
            response_model=self._model,
            stop_reason=self._stop_reason,
            unknown_counters=usages.unknown_counters(self._counts),
            estimated=not complete and not free,
        )
