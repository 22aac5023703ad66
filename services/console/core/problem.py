"""A refusal that names the field."""

import re

import msgspec

from shared.errors import Rejected

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_MISSING = re.compile(r"missing required field `([^`]+)`")


class Invalid(Rejected):
    """What was sent cannot be taken. field: its path, like `customers[0].budgets[1].timezone`; "" for the whole."""

    def __init__(self, field: str, message: str, code: str = "invalid_request", status: int = 400) -> None:
        super().__init__(code, f"{field}: {message}" if field else message, status)
        self.field = field


def of_validation(error: msgspec.ValidationError) -> Invalid:
    """msgspec's words, with the path turned round: an unknown or a missing field is named itself, not its parent."""
    found = _AT.match(str(error))
    assert found is not None  # the pattern takes any text
    what, path = found["what"], (found["path"] or "").removeprefix("$").removeprefix(".")
    if unknown := _UNKNOWN.search(what):
        return Invalid(join(path, unknown[1]), "this field is not known", "unknown_field")
    if missing := _MISSING.search(what):
        return Invalid(join(path, missing[1]), "this field is required", "missing_field")
    return Invalid(path, what)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
