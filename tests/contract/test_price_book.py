"""The price book that comes with the release: complete, without gaps, and what the published table says."""

import itertools
from collections import defaultdict

import msgspec
import pytest

from services.pricing.stores import read_book
from shared.clock import parse
from shared.contracts.pricing import PriceBook, RateCard
from shared.rates import Book, canonical
from shared.rates.book import FOR_EVER, TOKEN_METERS

BOOK = read_book()
NOW = parse("2026-11-21")
PER_MILLION = 1_000_000
KINDS = ("anthropic", "bedrock", "vertex")

# USD per million tokens as of 2026-11-21: input, output, 5-minute write, 1-hour write, cache read
TABLE: dict[str, tuple[float, ...]] = {
    "claude-fable-5-2": (8, 40, 10, 16, 0.20),
    "claude-fable-5-1": (10, 50, 12.50, 20, 0.25),
    "claude-mythos-5-1": (10, 50, 12.50, 20, 0.25),
    "claude-fable-5": (10, 50, 12.50, 20, 1.00),
    "claude-mythos-5": (10, 50, 12.50, 20, 1.00),
    "claude-opus-5-5": (4, 20, 5, 8, 0.20),
    "claude-opus-5": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-8": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-7": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-6": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-5": (5, 25, 6.25, 10, 0.50),
    "claude-opus-4-1": (15, 75, 18.75, 30, 1.50),
    "claude-opus-4": (15, 75, 18.75, 30, 1.50),
    "claude-sonnet-5-5": (2, 10, 2.50, 4, 0.10),
    "claude-sonnet-5": (2, 10, 2.50, 4, 0.20),
    "claude-sonnet-4-6": (3, 15, 3.75, 6, 0.30),
    "claude-sonnet-4-5": (3, 15, 3.75, 6, 0.30),
    "claude-sonnet-4": (3, 15, 3.75, 6, 0.30),
    "claude-haiku-5-5": (0.10, 0.50, 0.125, 0.20, 0.01),
    "claude-haiku-4-5": (1, 5, 1.25, 2, 0.10),
    "claude-haiku-3-5": (0.80, 4, 1.00, 1.60, 0.08),
}
FAST = {
    "claude-fable-5-2": (16, 80, 20, 32, 0.40),
    "claude-opus-5-5": (8, 40, 10, 16, 0.40),
    "claude-opus-5": (10, 50, 12.50, 20, 1.00),
    "claude-opus-4-8": (10, 50, 12.50, 20, 1.00),
}


def usd(card: RateCard) -> tuple[float, ...]:
    """The card in the order of the table."""
    rates = (
        card.rates.input,
        card.rates.output,
        card.rates.cache_write_5m,
        card.rates.cache_write_1h,
        card.rates.cache_read,
    )
    return tuple((rate or 0) / PER_MILLION for rate in rates)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", TABLE)
def test_the_book_has_the_published_rate(kind: str, model: str) -> None:
    card = Book(BOOK).card(kind, model, "standard", NOW, 0)
    assert card is not None
    assert usd(card) == TABLE[model]


@pytest.mark.parametrize("model", TABLE)
def test_only_the_published_models_are_sold_fast(model: str) -> None:
    card = Book(BOOK).card("anthropic", model, "fast", NOW, 0)
    assert (usd(card) if card else None) == FAST.get(model)


def test_a_large_prompt_has_rates_of_its_own() -> None:
    card = Book(BOOK).card("anthropic", "claude-haiku-5-5", "standard", NOW, 100_001)
    assert card is not None
    assert usd(card) == (0.50, 2.50, 0.625, 1.00, 0.05)


@pytest.mark.parametrize("card", BOOK.cards, ids=lambda card: card.id)
def test_every_card_is_complete(card: RateCard) -> None:
    assert all((getattr(card.rates, meter) or 0) > 0 for meter in TOKEN_METERS)
    assert card.rates.thinking == card.rates.output
    assert card.family in card.models[0]
    assert card.models[0] == canonical(card.models[0])
    assert {canonical(model) for model in card.models} - {f"{card.models[0]}-0"} == {card.models[0]}
    assert card.source
    assert card.batch_percent == 50
    assert 0 < card.max_tokens < card.context_tokens
    assert parse(card.valid_from) < (parse(card.valid_until) if card.valid_until else FOR_EVER)


def test_geo_costs_more_from_4_6_on_alone() -> None:
    older = {"claude-opus-4-5", "claude-opus-4-1", "claude-opus-4", "claude-sonnet-4-5", "claude-sonnet-4"}
    older |= {"claude-haiku-4-5", "claude-haiku-3-5"}
    assert {card.models[0] for card in BOOK.cards if card.geo_percent == 100} == older
    assert {card.geo_percent for card in BOOK.cards} == {100, 110}


def test_ids_are_unique() -> None:
    ids = [card.id for card in BOOK.cards] + [unit.id for unit in BOOK.units] + [region.id for region in BOOK.regions]
    assert len(ids) == len(set(ids))


def test_no_instant_and_no_prompt_has_two_cards_and_none_between_two_has_none() -> None:
    groups: dict[tuple[str, str, str], list[RateCard]] = defaultdict(list)
    for card in BOOK.cards:
        for model in card.models:
            groups[card.provider, model, card.speed].append(card)
    book = Book(BOOK)
    for (kind, model, speed), cards in groups.items():
        instants = sorted({parse(card.valid_from) for card in cards} | {NOW})
        prompts = sorted({card.prompt_above for card in cards} | {card.prompt_above + 1 for card in cards})
        for at, prompt in itertools.product(instants, prompts):
            fitting = [
                card
                for card in book.cards(kind, model, speed, at)
                if (prompt > card.prompt_above or not card.prompt_above)
                and (card.prompt_up_to is None or prompt <= card.prompt_up_to)
            ]
            assert len(fitting) == 1, (kind, model, speed, at, prompt)


def test_searches_and_fetches_have_a_rate_and_fetches_are_free() -> None:
    units = {(unit.provider, unit.meter): unit.pico_usd for unit in BOOK.units}
    assert units["anthropic", "web_search"] * 1_000 == 10 * 10**12
    assert units["anthropic", "web_fetch"] == 0


def test_the_book_fits_into_one_message_and_survives_it() -> None:
    data = msgspec.json.encode(BOOK)
    assert len(data) < 512 * 1024
    assert msgspec.json.decode(data, type=PriceBook) == BOOK


def test_a_book_without_cards_is_refused() -> None:
    with pytest.raises(ValueError, match="free"):
        Book(msgspec.structs.replace(BOOK, cards=()))
