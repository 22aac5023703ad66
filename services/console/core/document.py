"""Bytes of YAML or JSON to typed documents; whatever is doubled, unknown or of the wrong type is an error by name."""

import json
from typing import TypeVar

import msgspec
import yaml

from services.console.core.problem import Invalid, of_validation
from shared.contracts.organisation import Organisation

S = TypeVar("S")


class _Loader(yaml.SafeLoader):
    """Safe YAML without doubled keys (the last would win) and with dates left as the text people wrote."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise Invalid("", f"line {key_node.start_mark.line + 1}: `{key}` is a field name and must be text")
        if key in seen:
            raise Invalid(key, f"line {key_node.start_mark.line + 1}: this field stands twice", "doubled_field")
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_organisation(data: bytes, *, is_json: bool) -> Organisation:
    """The whole document; `{}` is an organisation without anything in it. Raises Invalid.

    Nothing at all is refused: it is a file that was not found or not written, and would delete everything.
    """
    tree = json_tree(data) if is_json else yaml_tree(data)
    if tree is None:
        raise Invalid("", "the document is empty; an organisation without anything in it is written {}", "empty")
    return typed(Organisation, tree)


def typed(kind: type[S], tree: object) -> S:
    """Raises Invalid naming the field."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise of_validation(error) from None


def yaml_tree(data: bytes) -> object:
    """None for a document without content."""
    try:
        tree = yaml.load(data, Loader=_Loader)  # noqa: S506  # a SafeLoader, made stricter
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise Invalid("", f"{at}{getattr(error, 'problem', None) or error}", "invalid_yaml") from None
    except (RecursionError, ValueError) as error:
        raise Invalid("", f"this is not a YAML document we can read: {error}", "invalid_yaml") from None
    return tree


def json_tree(data: bytes) -> object:
    try:
        return json.loads(data, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid("", f"this is not JSON: {error}", "invalid_json") from None


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise Invalid(name, "this field stands twice", "doubled_field")
        found[name] = value
    return found


def _constant(name: str) -> object:
    raise ValueError(f"{name} is not a number")
