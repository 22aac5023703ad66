"""An answer as the frames of a stream, and as one JSON message.

Each frame knows how much has been made once it is sent, so that a stream that ends anywhere has a price. The grammar
is that of contract section 2.6.
"""

from functools import lru_cache
from typing import Any, Literal

import msgspec

from services.simulator.core import usage as usages
from services.simulator.core.script import Tool
from services.simulator.core.usage import Account

Mark = Literal["start", "ping", "open", "delta", "close", "message_delta", "stop", "error", "other"]
SIGNATURE = "c2ltdWxhdGVk"  # opaque to every client
FILLER = "The simulator goes on, word after word, as long as it was asked to. "


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One event. wait_ms: silence before it. made, searches: output tokens and web searches, all told, once it is sent."""

    data: bytes
    mark: Mark
    wait_ms: int = 0
    made: int = 0
    searches: int = 0


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """hidden: the text is kept back; the deltas tell an estimate of the tokens instead."""

    tokens: int
    hidden: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an answer shows. text_tokens + tool_tokens + thinking are the output.

    chunks: deltas of the text; chunk_ms: silence before each; deltas: how many message_delta events.
    """

    id: str
    account: Account
    stop_reason: str
    text: str
    text_tokens: int
    tool: Tool | None = None
    tool_tokens: int = 0
    thinking: Thinking | None = None
    searches: int = 0
    chunks: int = 4
    chunk_ms: int = 0
    deltas: int = 1
    no_usage: bool = False


def event(name: str, data: bytes) -> bytes:
    """One server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


PING = event("ping", b'{"type":"ping"}')
STOP = event("message_stop", b'{"type":"message_stop"}')
UNKNOWN = event("simulator_novelty", b'{"type":"simulator_novelty","note":"readers ignore what they do not know"}')


def filler(size: int) -> str:
    """Plain text of so many bytes."""
    return (FILLER * (size // len(FILLER) + 1))[:size]


def stream(message: Message) -> tuple[Frame, ...]:
    """All frames of a good stream."""
    tape = _Tape(message)
    tape.add("message_start", {"type": "message_start", "message": _opening(message)}, "start", made=1)
    tape.frames.append(Frame(data=PING, mark="ping", made=tape.made))
    if message.thinking:
        _think(tape, message.thinking)
    for at in range(message.searches):
        _search(tape, f"srvtoolu_{message.id[4:]}{at:02d}")
    if message.text:
        _text(tape, message)
    if message.tool:
        _call(tape, message.tool, f"toolu_{message.id[4:]}")
    _finish(tape, message)
    return tuple(tape.frames)


class _Tape:
    """Frames so far, the index of the next block, and how much has been made."""

    def __init__(self, message: Message) -> None:
        self.frames: list[Frame] = []
        self.index = 0
        self.made = 0
        self.searches = 0
        self.total = message.account.whole.output_tokens
        self.chunk_ms = message.chunk_ms

    def add(self, name: str, data: object, mark: Mark, made: int = 0, wait_ms: int = 0) -> None:
        """made: tokens that this event adds; never more than the answer has."""
        self.put(event(name, msgspec.json.encode(data)), mark, made, wait_ms)

    def put(self, data: bytes, mark: Mark, made: int = 0, wait_ms: int = 0) -> None:
        """Add an event that is already rendered."""
        self.made = min(self.total, self.made + made)
        self.frames.append(Frame(data=data, mark=mark, wait_ms=wait_ms, made=self.made, searches=self.searches))

    def open(self, block: object) -> None:
        """Begin a content block."""
        self.add(
            "content_block_start",
            {"type": "content_block_start", "index": self.index, "content_block": block},
            "open",
        )

    def delta(self, delta: object, made: int = 0, wait_ms: int = 0) -> None:
        """Go on with the open block."""
        data = {"type": "content_block_delta", "index": self.index, "delta": delta}
        self.add("content_block_delta", data, "delta", made, wait_ms)

    def close(self) -> None:
        """End the open block."""
        self.add("content_block_stop", {"type": "content_block_stop", "index": self.index}, "close")
        self.index += 1


def _opening(message: Message) -> dict[str, Any]:
    found = _envelope(message) | {"content": [], "stop_reason": None, "stop_sequence": None}
    return found if message.no_usage else found | {"usage": usages.at_start(message.account)}


def _envelope(message: Message) -> dict[str, Any]:
    return {"id": message.id, "type": "message", "role": "assistant", "model": message.account.model}


def _think(tape: _Tape, thinking: Thinking) -> None:
    tape.open({"type": "thinking", "thinking": "", "signature": ""})
    for tokens in shares(thinking.tokens, min(4, thinking.tokens)):
        if thinking.hidden:
            delta: dict[str, Any] = {"type": "thinking_delta", "thinking": "", "estimated_tokens": tokens}
        else:
            delta = {"type": "thinking_delta", "thinking": filler(tokens * 4)}
        tape.delta(delta, tokens, tape.chunk_ms)
    tape.delta({"type": "signature_delta", "signature": SIGNATURE})
    tape.close()


def _search(tape: _Tape, use_id: str) -> None:
    tape.open({"type": "server_tool_use", "id": use_id, "name": "web_search", "input": {}})
    tape.delta({"type": "input_json_delta", "partial_json": '{"query": "sluicegate"}'})
    tape.close()
    tape.searches += 1
    tape.open({"type": "web_search_tool_result", "tool_use_id": use_id, "content": _results()})
    tape.close()


def _results() -> list[dict[str, Any]]:
    """One made-up result."""
    page = {"url": "https://example.com/", "title": "An example", "encrypted_content": SIGNATURE, "page_age": None}
    return [{"type": "web_search_result"} | page]


def _text(tape: _Tape, message: Message) -> None:
    tape.open({"type": "text", "text": ""})
    pieces = _text_deltas(tape.index, message.text, message.chunks)
    for data, tokens in zip(pieces, shares(message.text_tokens, len(pieces)), strict=True):
        tape.put(data, "delta", tokens, message.chunk_ms)
    tape.close()


@lru_cache(maxsize=256)  # a benchmark asks for the same text thousands of times
def _text_deltas(index: int, text: str, chunks: int) -> tuple[bytes, ...]:
    sizes, at, found = shares(len(text), min(chunks, len(text))), 0, list[bytes]()
    head = b'{"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":' % index
    for size in sizes:
        found.append(event("content_block_delta", head + msgspec.json.encode(text[at : at + size]) + b"}}"))
        at += size
    return tuple(found)


def _call(tape: _Tape, tool: Tool, use_id: str) -> None:
    tape.open({"type": "tool_use", "id": use_id, "name": tool.name, "input": {}})
    written, at = tool.input.decode(), 0
    sizes = shares(len(written), min(2, len(written)))
    for size, tokens in zip(sizes, shares(tape.total - tape.made, len(sizes)), strict=True):
        tape.delta({"type": "input_json_delta", "partial_json": written[at : at + size]}, tokens, tape.chunk_ms)
        at += size
    tape.close()


def _finish(tape: _Tape, message: Message) -> None:
    """The message_delta events, whose usage is cumulative, and the stop."""
    stop = {"stop_reason": message.stop_reason, "stop_sequence": None}
    for at in range(1, message.deltas + 1):
        last = at == message.deltas
        data: dict[str, Any] = {"type": "message_delta", "delta": stop if last else stop | {"stop_reason": None}}
        if not message.no_usage:
            data["usage"] = usages.at_delta(message.account, None if last else tape.total * at // message.deltas)
        tape.add("message_delta", data, "message_delta", tape.total)
    tape.put(STOP, "stop")


def shares(total: int, parts: int) -> list[int]:
    """Whole numbers that differ by one at most and sum up to the total."""
    return [total * (at + 1) // parts - total * at // parts for at in range(parts)]


def whole(message: Message) -> bytes:
    """The answer to a request that does not stream."""
    content = list[dict[str, Any]]()
    if message.thinking:
        thought = "" if message.thinking.hidden else filler(message.thinking.tokens * 4)
        content.append({"type": "thinking", "thinking": thought, "signature": SIGNATURE})
    for at in range(message.searches):
        use_id = f"srvtoolu_{message.id[4:]}{at:02d}"
        content.append(
            {"type": "server_tool_use", "id": use_id, "name": "web_search", "input": {"query": "sluicegate"}}
        )
        content.append({"type": "web_search_tool_result", "tool_use_id": use_id, "content": _results()})
    if message.text:
        content.append({"type": "text", "text": message.text})
    if message.tool:
        called = {"id": f"toolu_{message.id[4:]}", "name": message.tool.name, "input": msgspec.Raw(message.tool.input)}
        content.append({"type": "tool_use"} | called)
    found = _envelope(message) | {"content": content, "stop_reason": message.stop_reason, "stop_sequence": None}
    return msgspec.json.encode(found if message.no_usage else found | {"usage": usages.final(message.account)})
