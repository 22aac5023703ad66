"""The schemas of the API server, strict ones, of each version; and our own of what operators bring."""

import functools
import importlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from tests.chart.render import Object
from tests.chart.tools import ROOT, SCHEMAS, TOOLS

VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))
OPERATORS = ROOT / "tests" / "chart" / "operators.yaml"
SURROUNDINGS = ROOT / "tests" / "chart" / "surroundings.yaml"


@functools.cache
def library() -> Any:
    """jsonschema, of `.cache/chart-tools`."""
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))  # behind everything else: nothing of ours is found there
    return importlib.import_module("jsonschema"), importlib.import_module("referencing")


@functools.cache
def definitions(version: str) -> Any:
    """All types of one version, parsed once: the file has 1.5 MB."""
    _, referencing = library()
    path = SCHEMAS / f"v{version}.0-local-strict" / "_definitions.json"
    return referencing.Resource.from_contents(json.loads(path.read_text()))


@functools.cache
def validator(version: str, api_version: str, kind: str) -> Any:
    """None where the version knows no such kind."""
    jsonschema, referencing = library()
    group, _, number = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number)))
    path = SCHEMAS / f"v{version}.0-local-strict" / f"{name}.json"
    if not path.exists():
        return None
    registry = definitions(version) @ referencing.Registry()
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=registry)


@functools.cache
def operators() -> dict[str, Any]:
    """Validators of custom resources, by apiVersion/kind."""
    jsonschema, _ = library()
    known = yaml.safe_load(OPERATORS.read_text())
    beside = yaml.safe_load(SURROUNDINGS.read_text())
    whole = {name: {**schema, "$defs": known["$defs"]} for name, schema in known["kinds"].items()}
    whole |= {name: {**_object_of(spec), "$defs": beside["$defs"]} for name, spec in beside["specs"].items()}
    return {name: jsonschema.Draft202012Validator(schema) for name, schema in whole.items()}


def _object_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object, all but whose spec is alike."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": True,
            "kind": True,
            "metadata": {"$ref": "#/$defs/metadata"},
            "spec": {"type": "object", "additionalProperties": False, **spec},
        },
    }


def problems(found: Object, version: str) -> Iterator[str]:
    """What the API server would refuse."""
    own = operators().get(f"{found['apiVersion']}/{found['kind']}")
    check = own or validator(version, found["apiVersion"], found["kind"])
    if check is None:
        yield f"{version} knows no {found['apiVersion']} {found['kind']}"
        return
    for error in check.iter_errors(found):
        where = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, error.absolute_path)))
        yield f"{found['kind']} {found['metadata']['name']}: {where}: {error.message}"
