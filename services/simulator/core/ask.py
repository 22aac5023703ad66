"""What a request to the Messages API says, as far as an answer depends on it."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from services.simulator.core import directives
from services.simulator.core.directives import Directives
from shared.digest import body_digest

Block = dict[str, Any]  # a content block or tool as the client wrote it: open by definition
REMINDER = "<system-reminder>"  # text that the client adds in the user's name


class Malformed(ValueError):
    """The body is no request; the message says what is wrong, as the provider's would."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The top level. messages stays raw, because its bytes as sent are what a repeat is recognised by."""

    model: str
    messages: msgspec.Raw
    max_tokens: int | None = None
    stream: bool = False
    system: str | list[Block] = []
    tools: list[Block] = []
    tool_choice: Block = {}
    thinking: Block = {}
    output_config: Block = {}
    speed: str | None = None
    inference_geo: str | None = None


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `messages`; role may be system, content may be plain text."""

    role: str
    content: str | list[Block]

    def blocks(self) -> list[Block]:
        """The content as blocks, whichever way it was written."""
        return [{"type": "text", "text": self.content}] if isinstance(self.content, str) else self.content


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request, understood.

    model: without directives. prompt: the last text a person wrote. results: texts of the tool results since then.
    messages_digest: as in `shared.digest`; body_digest: SHA-256 of the body as sent; both hexadecimal.
    """

    body: Body
    turns: tuple[Turn, ...]
    model: str
    prompt: str
    results: tuple[str, ...]
    wish: Directives
    messages_digest: str
    body_digest: str
    subagent: bool = False


_body = msgspec.json.Decoder(Body)
_turns = msgspec.json.Decoder(tuple[Turn, ...])


def read(raw: bytes, headers: Mapping[str, str], *, needs_max_tokens: bool = True) -> Ask:
    """Understand a body and its `x-simulator` header. Raises Malformed, UnknownDirective."""
    try:
        body = _body.decode(raw)
        turns = _turns.decode(body.messages)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None
    if not turns:
        raise Malformed("messages: at least one message is required")
    if needs_max_tokens and (body.max_tokens is None or body.max_tokens < 1):
        raise Malformed("max_tokens: Field required" if body.max_tokens is None else "max_tokens: must be at least 1")
    prompt, results = last_prompt(turns)
    model, in_model = directives.in_model(body.model)
    # A background request quotes the user's prompt: the wish in it is meant for the answer to the user.
    in_text = "" if wants_json(body) else directives.in_text(prompt)
    return Ask(
        body=body,
        turns=turns,
        model=model,
        prompt=prompt,
        results=results,
        wish=directives.read(in_model, in_text, headers.get("x-simulator", "")),
        messages_digest=body_digest(body.messages).hex(),
        body_digest=hashlib.sha256(raw).hexdigest(),
        subagent="x-claude-code-agent-id" in headers,
    )


def wants_json(body: Body) -> bool:
    """Whether the answer must be JSON of a schema, as for a session's title."""
    return not body.tools and schema(body) is not None


def schema(body: Body) -> Block | None:
    """The JSON schema that the answer must have."""
    form = body.output_config.get("format")
    found = form.get("schema") if isinstance(form, dict) else None
    return found if isinstance(found, dict) else None


def last_prompt(turns: tuple[Turn, ...]) -> tuple[str, tuple[str, ...]]:
    """The last text of a person, and the texts of the tool results after it, in order."""
    prompt, results = "", list[str]()
    for turn in turns:
        if turn.role != "user":
            continue
        for block in turn.blocks():
            if block.get("type") == "tool_result":
                results.append("\n".join(texts(block.get("content"))))
            elif block.get("type") == "text" and not str(block.get("text", "")).lstrip().startswith(REMINDER):
                prompt, results = str(block.get("text", "")), []
    return prompt, tuple(results)


def texts(content: object) -> Iterator[str]:
    """The texts in a content, which is a string, a list of blocks or missing."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                yield block["text"]


def first_path(results: tuple[str, ...]) -> str:
    """The directory that a tool told us it works in; empty when none did."""
    for result in results:
        if found := re.search(r"^(/[^\s:*?\"<>|]*)\s*$", result, re.MULTILINE):
            return found.group(1).rstrip("/")
    return ""
