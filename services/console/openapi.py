"""The OpenAPI document, made from the route table and the shapes of the API. Pure."""

import json
import re
import sys
from typing import Any

import msgspec

from services.console import api
from services.console.handlers.context import WAIT
from services.console.handlers.routes import ROUTES, Route

PATH = "/api/openapi.json"
REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")

Json = dict[str, Any]
SECURITY: dict[str, list[Json]] = {
    "public": [],
    "read": [{"adminToken": []}, {"session": []}],
    "write": [{"adminToken": []}, {"session": []}],
    "key": [{"virtualKey": []}],
}


def document() -> Json:
    """OpenAPI 3.1."""
    kinds = {kind for route in ROUTES for kind in (route.body, route.answer) if kind} | {api.ErrorAnswer}
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=REF)
    paths: Json = {}
    for route in ROUTES:
        if route.partial and route.body:
            schemas[f"{route.body.__name__}Patch"] = _all_optional(schemas[route.body.__name__])
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluicegate admin API",
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": _schemes()},
    }


def _operation(route: Route) -> Json:
    told: Json = {
        "operationId": _name(route),
        "summary": route.summary,
        "tags": [route.path.split("/")[3]],
        "security": SECURITY[route.need],
        "parameters": _parameters(route),
        "responses": {
            str(route.status): _answer(route),
            "default": {"description": "What went wrong", "content": _content("application/json", "ErrorAnswer")},
        },
    }
    if route.body:
        name = f"{route.body.__name__}Patch" if route.partial else route.body.__name__
        content = _content("application/json", name)
        if route.path.endswith("/organisation"):
            content |= _content("application/yaml", name)
        told["requestBody"] = {"required": True, "content": content}
    return told


def _answer(route: Route) -> Json:
    if route.status == 204:
        return {"description": "Done"}
    content: Json = {}
    for media in route.content:
        structured = route.answer is not None and media in ("application/json", "application/yaml")
        content |= _content(media, route.answer.__name__) if structured and route.answer else {media: {}}
    return {"description": "Done", "content": content}


def _content(media: str, name: str) -> Json:
    return {media: {"schema": {"$ref": REF.format(name=name)}}}


def _parameters(route: Route) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]
    if route.query:
        _, schemas = msgspec.json.schema_components((route.query,))
        for name, schema in schemas[route.query.__name__]["properties"].items():
            found.append({"name": name, "in": "query", "required": False, "schema": schema})
    if route.waits:
        told = {
            "type": "string",
            "pattern": r"^\d+(\.\d+)?s?$",
            "description": "seconds, at most 10: answer with in_force",
        }
        found.append({"name": WAIT, "in": "query", "required": False, "schema": told})
    if route.once:
        found.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string"}})
    if route.revision:
        found.append({"name": "If-Match", "in": "header", "required": False, "schema": {"type": "string"}})
    return found


def _name(route: Route) -> str:
    words = re.sub(r"[^a-z]+", " ", route.path.removeprefix("/api/v1").lower()).split()
    return "".join([route.method.lower(), *(word.capitalize() for word in words)])


def _all_optional(schema: Json) -> Json:
    return {name: value for name, value in schema.items() if name != "required"}


def _schemes() -> Json:
    return {
        "adminToken": {"type": "http", "scheme": "bearer", "description": "The admin token"},
        "session": {"type": "apiKey", "in": "cookie", "name": "sluicegate_session"},
        "virtualKey": {"type": "http", "scheme": "bearer", "description": "The secret of a virtual key"},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2, ensure_ascii=False) + "\n")
