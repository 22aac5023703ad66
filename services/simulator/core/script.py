"""What the simulated model says: a friendly text, JSON of a schema, or the next tool of a small play.

The play is the recipe of contract section 5: Bash, Write, Read, then a text. Which act is on is told by the number of
tool results since the last prompt, so that nothing needs to be remembered between requests.
"""

import re
from typing import Any

import msgspec

from services.simulator.core import ask as asks
from services.simulator.core.ask import Ask, Block
from services.simulator.core.directives import UnknownDirective

PLAY = ("Bash", "Write", "Read")
WORKING = re.compile(r"\b(tools?|files?|bash|shell|command|run|write|read|edit)\b", re.IGNORECASE)
DELEGATING = re.compile(r"\bsub-?agents?\b", re.IGNORECASE)
FILE = "sluicegate-note.txt"
DEEPEST = 8  # a schema may name itself; no example needs more


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a client's tool. input: JSON."""

    name: str
    input: bytes


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What to say, in this order: searches, text, tool. text may be empty when there is something else."""

    text: str
    tool: Tool | None = None
    searches: int = 0


def script(ask: Ask) -> Script:
    """Decide what to say. Raises UnknownDirective when `tool=` has an input that is no JSON."""
    wish = ask.wish
    searches = wish.searches if wish.searches is not None else int(_only_searches(ask))
    if not wish.tool and asks.wants_json(ask.body):
        return Script(text=msgspec.json.encode(example(asks.schema(ask.body) or {})).decode(), searches=searches)
    acts = [_wished(ask, act) for act in wish.tool.split("|")] if wish.tool else _acts(ask)
    done = len(ask.results)
    if done < len(acts):
        name = acts[done].name
        return Script(text=wish.text or f"I will use {name}.", tool=acts[done], searches=searches)
    return Script(text=wish.text or _friendly(ask, len(acts)), searches=searches)


def _acts(ask: Ask) -> list[Tool]:
    """The calls that this prompt leads to, all of them, from its first request to its last."""
    offered = {str(tool["name"]): tool for tool in ask.body.tools if "name" in tool and "input_schema" in tool}
    choice = ask.body.tool_choice.get("type", "auto")
    if choice == "none" or not offered:
        return []
    if choice in ("tool", "any"):
        name = str(ask.body.tool_choice.get("name") or next(iter(offered)))
        # Without an end a client that forces a tool would call it for ever.
        return [Tool(name=name, input=_input(ask, name))] * (len(ask.results) + 1)
    if DELEGATING.search(ask.prompt) and "Agent" in offered and not ask.subagent:
        return [Tool(name="Agent", input=_input(ask, "Agent"))]
    named = [name for name in offered if re.search(rf"\b{re.escape(name)}\b", ask.prompt)]
    if not named and not WORKING.search(ask.prompt):
        return []
    play = [name for name in PLAY if name in offered] or named[:1] or [next(iter(offered))]
    return [Tool(name=name, input=_input(ask, name)) for name in play]


def _wished(ask: Ask, act: str) -> Tool:
    """`Name` or `Name{"input": "as JSON"}`."""
    name, brace, rest = act.strip().partition("{")
    if not brace:
        return Tool(name=name, input=_input(ask, name))
    written = f"{{{rest}".encode()
    try:
        msgspec.json.decode(written)
    except msgspec.DecodeError as error:
        raise UnknownDirective(f"x-simulator: tool={name}: the input is not JSON: {error}") from None
    return Tool(name=name, input=written)


def _input(ask: Ask, name: str) -> bytes:
    """An input that the tool accepts: our own for the client's tools, else an example of its schema."""
    where = asks.first_path(ask.results)
    path = f"{where}/{FILE}" if where else FILE
    known: dict[str, Block] = {
        "Bash": {"command": "pwd; echo hello from sluicegate", "description": "Say hello and where"},
        "Write": {"file_path": path, "content": "written by the simulator\n"},
        "Read": {"file_path": path},
        "Agent": {"description": "Say hello", "prompt": "Say hello and stop.", "subagent_type": "Explore"},
    }
    if name in known:
        return msgspec.json.encode(known[name])
    shape = next((tool.get("input_schema") for tool in ask.body.tools if tool.get("name") == name), None)
    value = example(shape) if isinstance(shape, dict) else {}
    return msgspec.json.encode(value if isinstance(value, dict) else {})


def example(shape: dict[str, Any], name: str = "example", depth: int = 0) -> object:
    """A small value that fits a JSON schema: required fields only, first of an enum."""
    if "const" in shape:
        return shape["const"]
    if shape.get("enum"):
        return shape["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if shape.get(union):
            return example(shape[union][0], name, depth + 1) if depth < DEEPEST else None
    kind = shape.get("type", "object" if "properties" in shape else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return _example_object(shape, depth)
    if kind == "array":
        wanted = int(shape.get("minItems", 0))
        return [example(shape.get("items") or {}, name, depth + 1) for _ in range(wanted if depth < DEEPEST else 0)]
    plain: dict[str, object] = {"integer": 1, "number": 1, "boolean": True, "null": None}
    return plain.get(kind, f"Simulated {name}")


def _example_object(shape: dict[str, Any], depth: int) -> dict[str, object]:
    fields = shape.get("properties") or {}
    wanted = [name for name in shape.get("required", fields) if name in fields] if depth < DEEPEST else []
    return {name: example(fields[name], name, depth + 1) for name in wanted}


def _only_searches(ask: Ask) -> bool:
    """The client's WebSearch makes a request of its own whose only tool is the provider's search."""
    kinds = [str(tool.get("type", "")) for tool in ask.body.tools]
    return bool(kinds) and all(kind.startswith("web_search_") for kind in kinds)


def _friendly(ask: Ask, acts: int) -> str:
    if acts:
        return f"All done: {acts} tool{'s' if acts > 1 else ''} used, and everything went well."
    if ask.body.tools:
        return "Hello from the simulator. Ask me to write a file and read it, and I will use your tools."
    return "Hello from the simulator. I am no model, but I stream, count and bill like one."
