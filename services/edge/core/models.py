"""The models a key may use, in the shape of the provider's list."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from services.edge.core.policy import servable
from shared.clock import parse
from shared.contracts.config import Key
from shared.contracts.pricing import RateCard
from shared.directory import Directory

Entry = dict[str, Any]
WILD = frozenset("*?[")


def listing(directory: Directory, key: Key, cards: Iterable[RateCard], now: int) -> bytes:
    """The JSON of `GET /v1/models`, all on one page. cards: of the price book; now: microseconds."""
    entries = list(_entries(directory, key, cards, now).values())
    page = {
        "data": entries,
        "has_more": False,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }
    return msgspec.json.encode(page)


def one(directory: Directory, key: Key, cards: Iterable[RateCard], model: str, now: int) -> bytes | None:
    """The JSON of `GET /v1/models/{id}`; None when the key may not use it or nobody knows it."""
    entry = _entries(directory, key, cards, now).get(model)
    return msgspec.json.encode(entry) if entry else None


def _entries(directory: Directory, key: Key, cards: Iterable[RateCard], now: int) -> dict[str, Entry]:
    """By id: what the price book sells now, newest first, then what the organisation names beside it."""
    kinds = {provider.kind for provider in directory.providers(key.org)}
    sold = [card for card in cards if card.provider in kinds and _on_sale(card, now)]
    sold.sort(key=lambda card: card.valid_from, reverse=True)
    found: dict[str, Entry] = {}
    for card in sold:
        for model in card.models:
            if model not in found and servable(directory, key, model):
                found[model] = _entry(model, card)
    for model in _named(directory, key):
        if model not in found and not WILD & set(model) and servable(directory, key, model):
            found[model] = _entry(model, None)
    return found


def _on_sale(card: RateCard, now: int) -> bool:
    return parse(card.valid_from) <= now and (card.valid_until is None or now < parse(card.valid_until))


def _named(directory: Directory, key: Key) -> Iterator[str]:
    """Names written out in the organisation: by the key, its providers, and prices of models of its own."""
    yield from key.models
    for config in key.providers:
        yield from config.models
    for provider in directory.providers(key.org):
        yield from provider.models
    for price in directory.prices(key.org):
        if price.rates:
            yield from price.models


def _entry(model: str, card: RateCard | None) -> Entry:
    entry: Entry = {
        "type": "model",
        "id": model,
        "display_name": display_name(model),
        "created_at": card.valid_from if card else "2026-01-01T00:00:00Z",
    }
    if card:
        entry |= {"max_input_tokens": card.context_tokens, "max_tokens": card.max_tokens}
    return entry


def display_name(model: str) -> str:
    """`claude-opus-4-8` → `Claude Opus 4.8`; a release date is left out."""
    words: list[str] = []
    for part in model.split("-"):
        if part.isdigit() and len(part) >= 6:
            continue
        if part.isdigit() and words and words[-1].replace(".", "").isdigit():
            words[-1] += f".{part}"
        else:
            words.append(part.capitalize())
    return " ".join(words) or model
