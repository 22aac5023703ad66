"""What one request of the traffic looks like. Pure: the random numbers come in."""

import random
import uuid
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Kind = Literal["stream", "whole", "tools", "thinking", "cached", "error", "broken", "disconnect"]
KINDS: tuple[Kind, ...] = ("stream", "whole", "tools", "thinking", "cached", "error", "broken", "disconnect")
MIX: Mapping[Kind, int] = {
    "stream": 40,
    "whole": 15,
    "tools": 15,
    "thinking": 5,
    "cached": 10,
    "error": 5,
    "broken": 5,
    "disconnect": 5,
}
"""Weights: mostly what Claude Code sends, with enough of what goes wrong."""

ERRORS = ("status=400", "status=429;retry_after=1", "status=500", "status=529", "html")
BREAKS = ("error_event=in_block", "error_event=after_start", "reset=in_block", "reset=after_start", "clean_end=no_stop")
TOOLS = (("Bash", "command"), ("Read", "file_path"))  # name and its only input
CONTEXT = "Our house rules: be exact, be brief, be kind. " * 120  # some 1,400 tokens, worth a cache entry


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """One request, ready to be sent. hang_up_after: bytes of the answer after which the client goes; 0: it stays."""

    kind: Kind
    body: bytes
    headers: dict[str, str]
    stream: bool
    hang_up_after: int = 0


def shot(
    number: int, run: str, dice: random.Random, mix: Mapping[Kind, int], models: tuple[str, ...], directives: str
) -> Shot:
    """The next request. Its prompt names the run and the number, so that its `messages` are like no other's."""
    kind = dice.choices(tuple(mix), tuple(mix.values()))[0]
    stream = kind != "whole" and (kind != "error" or dice.random() < 0.7)
    wish = [f"output_tokens={dice.randint(20, 400)}", f"chunk_ms={dice.randint(0, 15)}", _fault(kind, dice), directives]
    session = str(uuid.UUID(int=dice.getrandbits(128), version=4))
    headers = {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "user-agent": "sluicegate-simulate/1",
        "x-claude-code-session-id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run}/{session}")),
        "x-simulator": ";".join(part for part in wish if part),
    }
    return Shot(
        kind=kind,
        body=msgspec.json.encode(_body(number, run, kind, dice.choice(models), stream)),
        headers=headers,
        stream=stream,
        hang_up_after=dice.randint(1, 3_000) if kind == "disconnect" else 0,
    )


def _fault(kind: Kind, dice: random.Random) -> str:
    if kind == "error":
        return dice.choice(ERRORS)
    if kind == "broken":
        return dice.choice(BREAKS)
    if kind == "thinking":
        return f"thinking={dice.randint(10, 200)}"
    return "chunk_ms=20" if kind == "disconnect" else ""


def _body(number: int, run: str, kind: Kind, model: str, stream: bool) -> dict[str, Any]:
    prompt = f"Request {number} of run {run}. Say something friendly."
    found: dict[str, Any] = {"model": model, "max_tokens": 4_096, "stream": stream}
    if kind == "cached":
        mark = {"cache_control": {"type": "ephemeral"}}
        found["system"] = [{"type": "text", "text": CONTEXT} | mark]
    if kind == "tools":
        found["tools"] = [_tool(name, field) for name, field in TOOLS]
        prompt = f"Request {number} of run {run}. Write a file, then read it."
    return found | {"messages": [{"role": "user", "content": prompt}]}


def _tool(name: str, field: str) -> dict[str, Any]:
    shape = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {"name": name, "description": f"The {name} tool", "input_schema": shape}
