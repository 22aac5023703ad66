"""The models on offer, in the shape of the official list (contract section 2.2)."""

from typing import Any

# id, display name, day of release, context, most output
_MODELS = (
    ("claude-fable-5-2", "Claude Fable 5.2", "2026-11-09", 1_000_000, 128_000),
    ("claude-opus-5-5", "Claude Opus 5.5", "2026-09-22", 1_000_000, 128_000),
    ("claude-sonnet-5-5", "Claude Sonnet 5.5", "2026-08-01", 1_000_000, 128_000),
    ("claude-haiku-5-5", "Claude Haiku 5.5", "2026-10-07", 1_000_000, 64_000),
    ("claude-opus-4-8", "Claude Opus 4.8", "2026-05-01", 1_000_000, 128_000),
    ("claude-sonnet-4-6", "Claude Sonnet 4.6", "2026-02-17", 1_000_000, 64_000),
    ("claude-haiku-4-5-20251001", "Claude Haiku 4.5", "2025-10-01", 200_000, 64_000),
)


def models(limit: int, after_id: str = "") -> dict[str, Any]:
    """One page of the list."""
    ids = [row[0] for row in _MODELS]
    start = ids.index(after_id) + 1 if after_id in ids else 0
    page = [_entry(*row) for row in _MODELS[start : start + limit]]
    return {
        "data": page,
        "has_more": start + limit < len(_MODELS),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def model(model_id: str) -> dict[str, Any] | None:
    """One entry of the list."""
    return next((_entry(*row) for row in _MODELS if row[0] == model_id), None)


def _entry(model_id: str, name: str, day: str, context: int, output: int) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model_id,
        "display_name": name,
        "created_at": f"{day}T00:00:00Z",
        "max_input_tokens": context,
        "max_tokens": output,
        "lifecycle": "active",
        "capabilities": None,
    }
