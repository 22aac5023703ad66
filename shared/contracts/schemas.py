"""Writes `schemas/` from the contracts: one JSON Schema per bus message, the organisation document, the price book."""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from shared.contracts import audit, budget, config, edge, leases, ledger, organisation, pricing

DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "usage.recorded": edge.UsageRecorded,
    "request.completed": edge.RequestCompleted,
    "edge.status": edge.EdgeStatus,
    "edge.decision.ack": edge.DecisionAck,
    "budget.reserve": budget.Reserve,
    "budget.verdict": budget.Verdict,
    "budget.withdraw": budget.Withdraw,
    "budget.extend": budget.Extend,
    "budget.cut": budget.Cut,
    "budget.done": budget.Done,
    "budget.trueup": budget.TrueUp,
    "budget.balances.asked": budget.BalancesAsked,
    "budget.balances": budget.Balances,
    "budget.acknowledged.asked": budget.AcknowledgedAsked,
    "budget.acknowledged": budget.Acknowledged,
    "budget.luggage.asked": budget.LuggageAsked,
    "budget.luggage": budget.LuggagePart,
    "budget.changed": budget.Changed,
    "budget.lease": leases.LeaseAsked,
    "budget.lease.answered": leases.LeaseAnswered,
    "budget.draw": leases.Drawn,
    "budget.return": leases.Returning,
    "edge.decision": budget.Decision,
    "budget.owned": budget.ShardOwned,
    "ledger.commit": ledger.Commit,
    "usage.priced": pricing.UsagePriced,
    "prices.book": pricing.PriceBookPublished,
    "price-book": pricing.PriceBook,
    "audit.append": audit.AuditPage,
    "config.changed": config.ConfigChanged,
    "organisation": organisation.Organisation,
}
"""File name in schemas/ to what it describes. Bus messages are msgpack arrays: their schema lists items in order."""


def render() -> dict[str, str]:
    """Every schema file's name and text, deterministic."""
    return {f"{name}.schema.json": _text(name, kind) for name, kind in DOCUMENTS.items()}


def _text(name: str, kind: type[msgspec.Struct]) -> str:
    (_, components) = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for definition, struct in _structs(kind).items():
        if definition in components:
            _name_items(components[definition], struct)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:sluicegate:{name}:1"}
    body = head | {"$ref": f"#/$defs/{kind.__name__}", "$defs": dict(sorted(components.items()))}
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def _structs(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Every Struct reachable from `kind`, by name."""
    found: dict[str, type[msgspec.Struct]] = {}
    waiting: list[object] = [kind]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            if one.__name__ not in found:
                found[one.__name__] = one
                waiting += [field.type for field in msgspec.structs.fields(one)]
        else:
            waiting += get_args(one)
    return found


def _name_items(definition: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """JSON Schema of an array has no field names: put each one beside its item, as a title."""
    items = definition.get("prefixItems")
    if not items:
        return
    names = [field.name for field in msgspec.structs.fields(struct)]
    if len(items) == len(names) + 1:
        names.insert(0, "tag")
    definition["prefixItems"] = [{"title": name} | item for name, item in zip(names, items, strict=True)]


def write(folder: Path) -> None:
    """Replace the generated files in `folder`."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.schema.json"):
        old.unlink()
    for name, text in render().items():
        (folder / name).write_text(text)
