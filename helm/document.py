"""Writes the chart's values.schema.json and README.md from the comments and types of its values.yaml.

`python -m helm.document` writes both; `--check` compares and ends with 1 where they are not what it would write.
"""

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from helm import settings

HERE = Path(__file__).parent
CHART = HERE / "sluicegate"
ANNOTATION = "@schema "
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}

Schema = dict[str, Any]


class Comments:
    """The lines above each key: words for people, and what the schema needs beside the default."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def above(self, key: yaml.Node) -> tuple[str, Schema]:
        line = key.start_mark.line
        found: list[str] = []
        while line > 0 and self._lines[line - 1].lstrip().startswith("#"):
            line -= 1
            found.insert(0, self._lines[line].lstrip().removeprefix("#").strip())
        annotations = [text.removeprefix(ANNOTATION) for text in found if text.startswith(ANNOTATION)]
        words = " ".join(text for text in found if not text.startswith(ANNOTATION))
        extra: Schema = {}
        for text in annotations:
            extra |= yaml.safe_load(text)
        return words, extra


def inferred(node: yaml.Node, comments: Comments, definitions: Schema) -> Schema:
    """The schema of a value from its default; maps are closed unless an annotation opens them."""
    default = yaml.SafeLoader("").construct_object(node, deep=True)
    schema: Schema = {"type": TYPES[type(default)]}
    if isinstance(node, yaml.MappingNode):
        schema |= {"additionalProperties": False, "properties": {}}
        for key, value in node.value:
            words, extra = comments.above(key) if not node.flow_style else ("", {})
            own = inferred(value, comments, definitions)
            if "$ref" in extra:
                own = copy.deepcopy(definitions[extra.pop("$ref").rsplit("/", 1)[1]])
            own |= extra
            schema["properties"][key.value] = {**({"description": words} if words else {}), **own}
    else:
        schema["default"] = default
    return schema


def over(base: Schema, more: Schema) -> Schema:
    """What a service may say: all that the defaults have, and what it alone has."""
    if base.get("type") != "object" or more.get("type") != "object":
        return base | more
    made = copy.deepcopy(base | {key: value for key, value in more.items() if key != "properties"})
    for name, own in more.get("properties", {}).items():
        known = made.setdefault("properties", {})
        known[name] = over(known[name], own) if name in known else own
    return made


def composed(text: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return root


def schema_of(text: str) -> Schema:
    definitions = yaml.safe_load((HERE / "definitions.yaml").read_text()) | settings.definitions()
    schema = inferred(composed(text), Comments(text), definitions)
    defaults = schema["properties"]["defaults"]
    services = schema["properties"]["services"]["properties"]
    for name, own in services.items():
        services[name] = over({key: value for key, value in defaults.items() if key != "description"}, own)
        services[name]["properties"]["settings"] = definitions[f"settings.{name}"]
    schema["properties"]["global"] = {"type": "object", "description": "Of a parent chart; nothing here reads it."}
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of Sluicegate's chart", **schema}


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """(value, default, words) of everything in values.yaml, in its order; a map has no default of its own."""
    yield from _rows(composed(text), "", Comments(text), schema_of(text))


def _rows(node: yaml.MappingNode, path: str, comments: Comments, schema: Schema) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        words = "" if node.flow_style else comments.above(key)[0]
        own = schema.get("properties", {}).get(key.value, {})
        words = words or own.get("description", "")
        here = f"{path}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and own.get("properties"):
            if words:
                yield here, "", words
            yield from _rows(value, f"{here}.", comments, own)
        else:
            default = yaml.SafeLoader("").construct_object(value, deep=True)
            choices = f" One of {', '.join(own['enum'])}." if "enum" in own else ""
            yield here, f"`{json.dumps(default, ensure_ascii=False)}`", f"{words}{choices}".strip()


def readme(text: str) -> str:
    lines = [(HERE / "introduction.md").read_text().rstrip(), "", "## Values", ""]
    lines += ["| value | default | |", "|---|---|---|"]
    for path, default, words in rows(text):
        cells = (f"`{path}`", default, words)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Settings of the services", ""]
    lines += [
        "`services.NAME.settings` takes these, by type and default; what they mean stands in `services/NAME/settings.py`.",
        "",
    ]
    for service in settings.SERVICES:
        free = ", ".join(f"`{name}` ({_kind(schema)})" for name, schema in settings.free(service).items())
        lines.append(f"- **{service}**: {free}")
    return re.sub(r" +\n", "\n", "\n".join(lines) + "\n")


def _kind(schema: Schema) -> str:
    kind = schema.get("type") or " or ".join(map(str, schema.get("enum", ())))
    return f"{kind}, {json.dumps(schema['default'])}" if "default" in schema else str(kind)


def files() -> dict[Path, str]:
    text = (CHART / "values.yaml").read_text()
    return {
        CHART / "values.schema.json": json.dumps(schema_of(text), indent=1, ensure_ascii=False) + "\n",
        CHART / "README.md": readme(text),
    }


def main() -> None:
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.exit(
            f"not what values.yaml says: {', '.join(path.name for path in stale)}; run `make schemas`" if stale else 0
        )
    for path in stale:
        path.write_text(files()[path])


if __name__ == "__main__":
    main()
