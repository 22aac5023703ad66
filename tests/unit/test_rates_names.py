"""One model, many spellings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pricing.stores import read_book
from shared.clock import parse
from shared.rates import Book, canonical

BOOK = Book(read_book())
NOW = parse("2026-11-21")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-3-5-haiku-20241022", "claude-haiku-3-5"),
        ("claude-3-5-haiku-latest", "claude-haiku-3-5"),
        ("claude-haiku-3-5", "claude-haiku-3-5"),
        ("claude-3-opus-20240229", "claude-opus-3"),
        ("claude-sonnet-5-5[1m]", "claude-sonnet-5-5"),
        ("anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5"),
        ("eu.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4"),
        ("global.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
        ("claude-opus-4-1@20250805", "claude-opus-4-1"),
        ("publishers/anthropic/models/claude-opus-4-8@default", "claude-opus-4-8"),
        ("our-tuned-model", "our-tuned-model"),
        ("", ""),
    ],
)
def test_a_spelling_leads_to_the_one_name(spelling: str, name: str) -> None:
    assert canonical(spelling) == name


@given(st.text(max_size=60))
def test_a_canonical_name_is_its_own(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize("kind", ["anthropic", "bedrock", "vertex"])
@pytest.mark.parametrize(
    "spelling",
    ["claude-haiku-4-5", "claude-haiku-4-5-20251001", "claude-haiku-4-5@20251001", "us.anthropic.claude-haiku-4-5-v1"],
)
def test_every_spelling_finds_the_same_card(kind: str, spelling: str) -> None:
    card = BOOK.card(kind, spelling, "standard", NOW, 0)
    assert card is not None
    assert card.id == f"{kind}/claude-haiku-4-5"


def test_a_name_that_only_begins_like_a_model_has_no_card() -> None:
    assert BOOK.card("anthropic", "claude-opus-5-50", "standard", NOW, 0) is None
    assert BOOK.card("anthropic", "claude-opus", "standard", NOW, 0) is None


@pytest.mark.parametrize(
    ("model", "limits"),
    [
        ("claude-opus-5-5", (128_000, 1_000_000)),
        ("claude-haiku-4-5-20251001", (64_000, 200_000)),
        ("claude-3-5-haiku-20241022", (8_192, 200_000)),
        ("claude-opus-9", (128_000, 1_000_000)),
        ("who-knows", (128_000, 1_000_000)),
    ],
)
def test_limits_are_the_models_own_or_the_largest_of_its_kin(model: str, limits: tuple[int, int]) -> None:
    found = BOOK.limits("anthropic", model)
    assert (found.max_tokens, found.context_tokens) == limits
