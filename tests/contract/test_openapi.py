"""The API's document in schemas/ is what the console serves."""

import json
from pathlib import Path

from services.console.openapi import document


def test_the_written_openapi_document_is_current() -> None:
    written = json.loads(Path("schemas/openapi.json").read_text())
    assert written == json.loads(json.dumps(document()))


def test_every_operation_says_what_it_does_and_how_it_fails() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert len(operation["responses"]) > 1, (method, path)
