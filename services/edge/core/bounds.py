"""How large a request can be at most, read from its body: text in bytes, images, pages, searches, or no bound at all.

Typed decoding skips what it does not know several times faster than a search for bytes, and sees through escapes.
"""

import binascii
import re
from collections.abc import Iterable

import msgspec

from shared.contracts.budget import Bound

Body = dict[str, msgspec.Raw]
"""The fields of the request body, undecoded, in order."""

CLIENT_RUN = ("bash_", "text_editor_", "computer_", "memory_")
"""Tools with a type of the provider's that the client runs."""
IN_BODY = ("tool_search_tool_",)
"""Run by the provider, but all they can add is in the body already."""

MOST_SEARCHES = 1_000  # what a body allows beyond is out of every proportion, and so must not become a figure of ours
LOOPS = 10  # the provider pauses a turn after so many rounds of its own tools
MOST_PAGES = 100  # of one PDF, as published
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
NONE = msgspec.Raw(b"")


class _Cache(msgspec.Struct, frozen=True):
    ttl: str = "5m"


class _Tool(msgspec.Struct, frozen=True):
    type: str | None = None
    max_uses: int | None = None
    cache_control: _Cache | None = None


class _Block(msgspec.Struct, frozen=True):
    """content: of a tool's result, or whatever else has that name. source: of media; other kinds use it otherwise."""

    type: str = ""
    source: msgspec.Raw = NONE
    content: msgspec.Raw = NONE
    cache_control: _Cache | None = None


class _Turn(msgspec.Struct, frozen=True):
    content: list[_Block] | str | None = None


class _Source(msgspec.Struct, frozen=True):
    type: str = ""
    data: msgspec.Raw = NONE
    content: msgspec.Raw = NONE


_tools = msgspec.json.Decoder(list[_Tool])
_turns = msgspec.json.Decoder(list[_Turn])
_blocks = msgspec.json.Decoder(list[_Block])
_source = msgspec.json.Decoder(_Source)
_text = msgspec.json.Decoder(str)
_cache = msgspec.json.Decoder(_Cache | None)


class Contents:
    """What a body holds beside text. base64_bytes: bytes of the body that are no text. ttls: of its cache marks."""

    def __init__(self) -> None:
        self.images = self.pages = self.base64_bytes = self.searches = self.loops = 0
        self.ttls: set[str] = set()

    def bounds(self, body_bytes: int) -> tuple[Bound, ...]:
        """Only what is there is named; text_bytes comes first, always.

        All bytes count as text but base64 data: escapes and keys make the bound larger, never smaller.
        """
        sizes = {"image": self.images, "page": self.pages, "web_search": self.searches, "unboundable": self.loops}
        text = Bound(meter="text_bytes", quantity=body_bytes - self.base64_bytes)
        return (text, *(Bound(meter=meter, quantity=quantity) for meter, quantity in sizes.items() if quantity))

    @property
    def cache_ttl(self) -> str:
        """The longest cache write that is asked for; an unknown one is taken for the dearest."""
        if not self.ttls:
            return ""
        return "5m" if self.ttls == {"5m"} else "1h"


def contents(found: Body) -> Contents:
    """Raises msgspec.DecodeError on tools, messages or blocks that are not of the API's shape."""
    seen = Contents()
    if "cache_control" in found and (mark := _cache.decode(found["cache_control"])):
        seen.ttls.add(mark.ttl)
    if "tools" in found and _starts(found["tools"], b"["):
        _look_at_tools(_tools.decode(found["tools"]), seen)
    if "mcp_servers" in found and len(memoryview(found["mcp_servers"])) > len("[]"):
        seen.loops = LOOPS
    if "system" in found and _starts(found["system"], b"["):
        _look_at(_blocks.decode(found["system"]), seen)
    for turn in _turns.decode(found["messages"]):
        if isinstance(turn.content, list):
            _look_at(turn.content, seen)
    return seen


def _look_at_tools(tools: Iterable[_Tool], seen: Contents) -> None:
    for tool in tools:
        if tool.cache_control:
            seen.ttls.add(tool.cache_control.ttl)
        kind = tool.type
        if not kind or kind == "custom" or kind.startswith((*CLIENT_RUN, *IN_BODY)):
            continue
        if kind.startswith("web_search_"):
            wished = LOOPS if tool.max_uses is None else max(0, tool.max_uses)
            seen.searches = min(MOST_SEARCHES, seen.searches + wished)
            if tool.max_uses is not None:
                continue
        seen.loops = LOOPS  # the provider runs it, in rounds that the body does not bound


def _look_at(blocks: Iterable[_Block], seen: Contents) -> None:
    """Blocks hold blocks: worked off as a list, so that no depth exhausts the stack."""
    waiting = list(blocks)
    while waiting:
        block = waiting.pop()
        if block.cache_control:
            seen.ttls.add(block.cache_control.ttl)
        if block.content is not NONE and _starts(block.content, b"["):
            waiting += _inner(block.content)
        if block.type == "container_upload":
            seen.loops = max(1, seen.loops)
        if block.type in ("image", "document") and _starts(block.source, b"{"):
            source = _source.decode(block.source)
            _weigh(block.type, source, seen)
            if source.type == "content" and _starts(source.content, b"["):
                waiting += _inner(source.content)


def _inner(raw: msgspec.Raw) -> list[_Block]:
    """The blocks in a block. A list of something else, as other kinds of blocks have it, holds no media."""
    try:
        return _blocks.decode(raw)
    except msgspec.ValidationError:
        return []


def _weigh(kind: str, source: _Source, seen: Contents) -> None:
    match source.type:
        case "base64":
            size = max(0, len(memoryview(source.data)) - len('""'))
            seen.base64_bytes += size
            if kind == "image":
                seen.images += 1
            else:
                seen.pages += _pages(source.data)
        case "text" | "content":
            pass  # it counts as text, or its blocks are looked at
        case _:
            seen.loops = max(1, seen.loops)  # by URL or file: the body does not tell how much it is


def _pages(data: msgspec.Raw) -> int:
    """Pages of a PDF; the most there can be where it does not show them."""
    try:
        raw = binascii.a2b_base64(_text.decode(data))
    except (ValueError, msgspec.DecodeError):
        return MOST_PAGES
    return min(MOST_PAGES, len(_PAGE.findall(raw))) or MOST_PAGES


def _starts(raw: msgspec.Raw, opening: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == opening
