"""What a request may ask of the simulator, and how the wish is written.

`name=value` pairs, `name` alone for a switch, separated by commas or semicolons. They come from the model's name
(`claude-opus-5-5+status=529`), the user's text (`[[sim: slow=3; chunks=8]]`) and the header `x-simulator`; the later
of these wins, name by name.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3_600)]
Place = Literal["before_start", "after_start", "in_block", "after_block", "before_stop"]

# What a name means when it stands alone; every other name alone is a switch that is turned on.
ALONE = {
    "error_event": "in_block",
    "reset": "in_block",
    "clean_end": "no_stop",
    "slow": "5",
    "late_headers": "5",
    "pings": "1",
    "unknown_event": "true",
}
OPENING = "[[sim:"


class UnknownDirective(ValueError):
    """A directive is misspelt or has a value of the wrong kind; the message names it."""


class Directives(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All of them; the README's table says what each does. None: not asked for."""

    output_tokens: Count | None = None
    input_tokens: Count | None = None
    cache_read: Count | None = None
    cache_5m: Count | None = None
    cache_1h: Count | None = None
    no_split: bool = False
    cost_usd: Decimal | None = None
    thinking: Count | None = None
    thinking_hidden: bool = False
    searches: Count | None = None
    tool: str = ""
    text: str = ""
    iterations: str = ""
    model: str = ""
    speed: Literal["", "standard", "fast"] = ""
    geo: str = ""
    tier: Literal["standard", "priority", "batch"] = "standard"
    chunks: Count | None = None
    chunk_ms: Count | None = None
    ttft_ms: Count | None = None
    message_deltas: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    error_type: str = ""
    message: str = ""
    retry_after: Count | None = None
    should_retry: bool | None = None
    html: bool = False
    error_event: Place | None = None
    reset: str = ""
    clean_end: Literal["", "after_start", "no_delta", "no_stop"] = ""
    slow: Seconds = 0.0
    pings: Seconds = 0.0
    late_headers: Seconds = 0.0
    no_usage: bool = False
    unknown_event: bool = False
    times: Count | None = None


NONE = Directives()


def _outside(text: str) -> Iterator[tuple[int, str]]:
    """Signs outside brackets and quotes, with their place: a tool's input is JSON. A closing one too many counts as such."""
    depth, quoted = 0, False
    for at, sign in enumerate(text):
        if sign == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif sign in "{[":
            depth += 1
        elif sign in "}]" and depth:
            depth -= 1
        elif depth == 0:
            yield at, sign


def pieces(text: str) -> list[str]:
    """Split at commas and semicolons."""
    found, start = list[str](), 0
    for at, sign in _outside(text):
        if sign in ",;":
            found.append(text[start:at])
            start = at + 1
    return [piece.strip() for piece in (*found, text[start:]) if piece.strip()]


def pairs(text: str) -> dict[str, str]:
    """Names and values as written; dashes in names are underscores."""
    given: dict[str, str] = {}
    for piece in pieces(text):
        name, equals, value = piece.partition("=")
        name = name.strip().lower().replace("-", "_")
        given[name] = value.strip() if equals else ALONE.get(name, "true")
    return given


def read(*sources: str) -> Directives:
    """The wishes of all sources, a later one over an earlier. Raises UnknownDirective."""
    given: dict[str, str] = {}
    for source in sources:
        if source:
            given |= pairs(source)
    if not given:
        return NONE
    try:
        wish = msgspec.convert(given, Directives, strict=False)
        place(wish.reset)
    except (msgspec.ValidationError, ValueError) as error:
        raise UnknownDirective(f"x-simulator: {error}") from None
    return wish


def place(reset: str) -> str | int:
    """Where a stream is reset: before_headers, after_headers, one of Place, or after so many bytes. Raises ValueError."""
    if reset.isdigit():
        return int(reset)
    if reset not in ("", "before_headers", "after_headers", "before_start", *_PLACES):
        raise ValueError(f"`{reset}` is not a place for a reset")
    return reset


_PLACES = ("after_start", "in_block", "after_block", "before_stop")


def in_model(model: str) -> tuple[str, str]:
    """The model's own name, and the directives that follow its first `+` (separated by further ones)."""
    name, _, wishes = model.partition("+")
    return name, wishes.replace("+", ";")


def in_text(text: str) -> str:
    """The directives in the last `[[sim: …]]` of a text."""
    start = text.rfind(OPENING)
    if start < 0:
        return ""
    rest = text[start + len(OPENING) :]
    end = next((at for at, sign in _outside(rest) if sign == "]"), None)
    return "" if end is None else rest[:end]
