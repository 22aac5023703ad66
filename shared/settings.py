"""Settings come from the environment by prefix, once, before anything opens; unknown names stop the start."""

import os
from collections.abc import Mapping
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(SystemExit):
    """A variable is unknown or has the wrong type; the message names it.

    It ends the program with that one line: settings are read before anything opens, and nobody could go on without them.
    """


def load(kind: type[S], prefix: str, environ: Mapping[str, str] | None = None) -> S:
    """Read `PREFIX_FIELD` (and `PREFIX_NESTED_FIELD` for a field that is itself a Struct).

    Raises SettingsError naming the variable.
    """
    variables = os.environ if environ is None else environ
    given = {name: value for name, value in variables.items() if name.startswith(f"{prefix}_")}
    tree, known = _tree(kind, prefix, given)
    if unknown := sorted(set(given) - known):
        raise SettingsError(f"{unknown[0]} is not a setting")
    try:
        return msgspec.convert(tree, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{prefix}_…: {error}") from None


def _tree(kind: type[msgspec.Struct], prefix: str, given: Mapping[str, str]) -> tuple[dict[str, object], set[str]]:
    """The nested values for `kind`, and the names of variables it can have."""
    values: dict[str, object] = {}
    known: set[str] = set()
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}_{field.name.upper()}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            values[field.encode_name], inner = _tree(field.type, name, given)
            known |= inner
        else:
            known.add(name)
            if name in given:
                values[field.encode_name] = given[name]
    return values, known


def environ_of(settings: msgspec.Struct, prefix: str) -> dict[str, str]:
    """The variables that `load` would read these settings from."""
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(type(settings)):
        name, value = f"{prefix}_{field.name.upper()}", getattr(settings, field.name)
        if isinstance(value, msgspec.Struct):
            found |= environ_of(value, name)
        else:
            found[name] = str(value)
    return found
