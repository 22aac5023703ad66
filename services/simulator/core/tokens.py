"""How many tokens a prompt has, and which of them the cache knows.

A token is four bytes of JSON. The prompt is a line of segments: tools, system, messages. A client marks some as
breakpoints: what precedes the last one can be kept for five minutes or an hour, and is read when it comes again.
"""

import hashlib
from collections.abc import Iterator

import msgspec

from services.simulator.core.ask import Ask, Block, Body, Turn

BYTES_PER_TOKEN = 4
FRAME_TOKENS = 8  # what the roles around the text cost
ATTRIBUTION = "x-anthropic-billing-header:"  # the provider strips this line, so it neither counts nor breaks a prefix
TTL_SECONDS = {"5m": 300, "1h": 3_600}

_encoder = msgspec.json.Encoder(order="deterministic")


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt up to the end of one segment. ttl: "" where there is no breakpoint."""

    digest: bytes
    tokens: int
    ttl: str


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Input tokens by class, disjoint. kept: the prefixes that this request leaves in the cache, with their ttl."""

    input_tokens: int
    cache_read: int = 0
    cache_5m: int = 0
    cache_1h: int = 0
    kept: tuple[tuple[bytes, str], ...] = ()


def prefixes(ask: Ask) -> list[Prefix]:
    """Every prefix of the prompt, shortest first."""
    digest, size, found = hashlib.sha256(ask.model.encode()), 0, list[Prefix]()
    for block in _segments(ask.body, ask.turns):
        control = block.get("cache_control")
        ttl = str(control.get("ttl", "5m")) if isinstance(control, dict) else ""
        # The marker moves on with each turn, so it is no part of what a prefix is recognised by.
        data = _encoder.encode({name: value for name, value in block.items() if name != "cache_control"})
        digest.update(data)
        size += len(data)
        found.append(Prefix(digest=digest.digest(), tokens=size // BYTES_PER_TOKEN, ttl=ttl))
    return found


def _segments(body: Body, turns: tuple[Turn, ...]) -> Iterator[Block]:
    yield from body.tools
    system = [{"type": "text", "text": body.system}] if isinstance(body.system, str) else body.system
    for block in system:
        if not str(block.get("text", "")).startswith(ATTRIBUTION):
            yield block
    for turn in turns:
        for block in turn.blocks():
            yield block | {"role": turn.role}


def total(line: list[Prefix]) -> int:
    """Tokens of the whole prompt."""
    return FRAME_TOKENS + (line[-1].tokens if line else 0)


def split(line: list[Prefix], known: frozenset[bytes]) -> Split:
    """Divide the prompt: the longest known prefix is read, the rest up to the last breakpoint is written."""
    marked = [at for at, prefix in enumerate(line) if prefix.ttl]
    if not marked:
        return Split(input_tokens=total(line))
    last = marked[-1]
    read_to = max((at for at in range(last + 1) if line[at].digest in known), default=-1)
    done = read = line[read_to].tokens if read_to >= 0 else 0
    written = {"5m": 0, "1h": 0}
    for at in marked:
        if at > read_to:
            written["1h" if line[at].ttl == "1h" else "5m"] += line[at].tokens - done
            done = line[at].tokens
    return Split(
        input_tokens=total(line) - line[last].tokens,
        cache_read=read,
        cache_5m=written["5m"],
        cache_1h=written["1h"],
        kept=tuple((line[at].digest, line[at].ttl) for at in marked),
    )
