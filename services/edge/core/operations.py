"""The closed table of operations. What is not in it is denied until it is declared with a price."""

import re
from typing import Literal

import msgspec

from services.edge.core.headers import Index

Handling = Literal["governed", "free", "local", "denied"]
"""governed: reserved and metered. free: forwarded, never blocked. local: answered by the edge itself."""

RESERVED = ("openai", "bedrock", "vertex", "mcp", "otlp")


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What a request line means.

    operation: messages, count_tokens, models, model, usage, probe, or "" when denied. upstream_path: path and query
    as the provider gets them. argument: the model id of `/v1/models/{id}`. client_format: how refusals are written.
    authenticated: whether the door has to let it in.
    """

    handling: Handling
    operation: str = ""
    upstream_path: str = ""
    argument: str = ""
    client_format: str = "anthropic"
    authenticated: bool = True


DENIED = Match(handling="denied")
PROBE = Match(handling="local", operation="probe", authenticated=False)
_TABLE: tuple[tuple[str, re.Pattern[str], Handling, str], ...] = (
    ("POST", re.compile(r"/v1/messages"), "governed", "messages"),
    ("POST", re.compile(r"/v1/messages/count_tokens"), "free", "count_tokens"),
    ("GET", re.compile(r"/v1/models"), "local", "models"),
    ("GET", re.compile(r"/v1/models/([A-Za-z0-9][A-Za-z0-9._:@+\[\]-]{0,127})"), "local", "model"),
    ("GET", re.compile(r"/api/oauth/usage"), "local", "usage"),
)
_PROBED = ("", "/", "/api/hello")


def resolve(method: str, path: str, headers: Index) -> Match:
    """path: as on the request line, with its query. A path without prefix is Anthropic's.

    Nothing is decoded or normalised: an escaped or doubled slash is another path, and denied.
    """
    bare, mark, query = path.partition("?")
    prefix, rest = _split(bare)
    if prefix in RESERVED:
        return DENIED
    if method == "HEAD" and rest in _PROBED:
        return PROBE
    for verb, shape, handling, operation in _TABLE:
        if verb == method and (found := shape.fullmatch(rest)):
            argument = found.group(1) if found.groups() else ""
            return Match(
                handling=handling, operation=operation, upstream_path=f"{rest}{mark}{query}", argument=argument
            )
    return DENIED


def _split(path: str) -> tuple[str, str]:
    """`/anthropic/v1/messages` → (`anthropic`, `/v1/messages`); the prefix is empty where there is none."""
    head, slash, rest = path[1:].partition("/")
    if path.startswith("/") and head in ("anthropic", *RESERVED):
        return head, f"{slash}{rest}"
    return "", path
