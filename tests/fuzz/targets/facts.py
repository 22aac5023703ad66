"""Request bodies. What we take for a request, json.loads takes for the same one; the model can be exchanged in place."""

import json
import time
from typing import Any

import msgspec

from services.edge.core.facts import Facts, read_facts
from shared.errors import Rejected

SECONDS = 1.0
OTHER = b'"another-model"'


def check(data: bytes) -> None:
    before = time.perf_counter()
    try:
        facts = read_facts(data, {})
    except Rejected as error:
        assert error.status == 400
        error.message.encode()
        return
    finally:
        assert time.perf_counter() - before < SECONDS
    same_to_another(data, facts)


def same_to_another(data: bytes, facts: Facts) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # in a field that we do not read: the provider's to judge
    pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs, strict=False)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), "a name that is given twice has two meanings"
    found: dict[str, Any] = dict(pairs)
    assert found["model"] == facts.model
    assert isinstance(found["messages"], list)
    assert (found.get("max_tokens") or 0) == facts.max_tokens
    assert bool(found.get("stream")) is facts.stream
    assert 0 <= facts.bounds[0].quantity <= len(data)
    start, end = facts.model_span
    assert json.loads(data[start:end]) == facts.model
    spliced = json.loads(data[:start] + OTHER + data[end:], strict=False)
    assert spliced.pop("model") == "another-model"
    whole = json.loads(text, strict=False)
    del whole["model"]
    assert repr(spliced) == repr(whole)
    msgspec.msgpack.encode(facts)
