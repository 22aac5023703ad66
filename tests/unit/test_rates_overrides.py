"""Negotiated prices: who they act for, on which amount, and from when."""

from typing import Any

import pytest

from services.pricing.stores import read_book
from shared.contracts.config import PriceOverride
from shared.contracts.edge import Line
from shared.rates import Asked, Book, Overrides, Priced, Terms, hold_rates, price

BOOK = Book(read_book())
AT = 1_795_262_400_000_000  # 2026-11-21T12:00:00Z
TERMS = Terms(at=AT, provider="P", org="O", customer="C", team="T", key="K")
SONNET = "claude-sonnet-4-5-20250929"


def override(uid: str = "1", **fields: Any) -> PriceOverride:
    return PriceOverride(**({"uid": uid, "org": "O", "models": ("claude-*",)} | fields))


def bill(*overrides: PriceOverride, model: str = SONNET, meter: str = "input", **line: str) -> Priced:
    lines = [Line(meter=meter, quantity=1_000_000, model=model, **line)]  # type: ignore[arg-type]  # speed, geo, region
    return price(lines, TERMS, BOOK, Overrides(overrides))


def amounts(found: Priced) -> tuple[float, float, float]:
    """list, cost and charge in dollars."""
    return found.list_nano_usd / 1e9, found.cost_nano_usd / 1e9, found.charge_nano_usd / 1e9


@pytest.mark.parametrize(
    ("acts_on", "dollars"),
    [("cost", (3, 2.64, 2.64)), ("charge", (3, 3, 2.64)), ("list", (2.64, 2.64, 2.64))],
)
def test_a_percentage_acts_on_its_amount_and_on_what_follows_from_it(
    acts_on: str, dollars: tuple[float, float, float]
) -> None:
    found = bill(override(percent_ppm=-120_000, acts_on=acts_on))
    assert amounts(found) == dollars
    assert found.lines[0].rate_id == "anthropic/claude-sonnet-4-5+price:1"


def test_cost_and_charge_are_negotiated_apart() -> None:
    found = bill(
        override("1", percent_ppm=-200_000, acts_on="cost"), override("2", percent_ppm=100_000, acts_on="charge")
    )
    assert amounts(found) == (3, 2.4, 2.64)


def test_the_most_specific_scope_wins() -> None:
    scopes = {"": -10_000, "provider:P": -20_000, "customer:C": -30_000, "team:T": -40_000, "key:K": -50_000}
    agreed = [override(str(i), scope=scope, percent_ppm=ppm) for i, (scope, ppm) in enumerate(scopes.items())]
    for count, ppm in enumerate(scopes.values(), start=1):
        for order in (agreed[:count], agreed[:count][::-1]):
            assert bill(*order).cost_nano_usd == 3_000 * (1_000_000 + ppm)


def test_an_exact_model_wins_over_a_pattern_in_the_same_scope() -> None:
    found = bill(override("1", models=("claude-sonnet-4-5",), percent_ppm=-500_000), override("2", percent_ppm=-1))
    assert found.cost_nano_usd == 1_500_000_000


@pytest.mark.parametrize(
    "fields",
    [
        {"org": "another"},
        {"scope": "customer:another"},
        {"scope": "team:another"},
        {"scope": "key:another"},
        {"scope": "provider:another"},
        {"scope": "planet:O"},
        {"provider": "another"},
        {"models": ("claude-opus-*",)},
        {"from_at": AT + 1},
        {"until_at": AT},
    ],
)
def test_what_was_agreed_for_others_does_not_act(fields: dict[str, Any]) -> None:
    assert amounts(bill(override(percent_ppm=-500_000, **fields))) == (3, 3, 3)


@pytest.mark.parametrize("fields", [{"from_at": AT}, {"until_at": AT + 1}, {"provider": "P", "scope": "key:K"}])
def test_an_override_holds_from_its_first_instant_to_before_its_last(fields: dict[str, Any]) -> None:
    assert bill(override(percent_ppm=-500_000, **fields)).cost_nano_usd == 1_500_000_000


def test_a_card_replaces_the_rates_it_names_and_no_others() -> None:
    card = override(rates={"input": 1_000_000, "output": 7_000_000})
    assert amounts(bill(card)) == (3, 1, 1)
    assert amounts(bill(card, meter="thinking")) == (15, 7, 7)
    assert amounts(bill(card, meter="cache_read")) == (0.3, 0.3, 0.3)


def test_surcharges_come_on_top_of_a_card() -> None:
    card = override(rates={"input": 1_000_000})
    assert amounts(bill(card, model="claude-opus-5", geo="us")) == (5.5, 1.1, 1.1)


def test_a_card_is_for_standard_speed() -> None:
    card = override(rates={"input": 1_000_000})
    assert amounts(bill(card, model="claude-opus-5", speed="fast")) == (10, 10, 10)


TUNED = override("9", models=("our-tuned-model",), rates={"input": 3_000_000, "output": 15_000_000})


@pytest.mark.parametrize(
    ("meter", "dollars"),
    [("input", 3), ("cache_read", 3), ("cache_write_5m", 3), ("cache_write_1h", 3), ("output", 15), ("thinking", 15)],
)
def test_a_card_for_a_model_of_ones_own_acts_on_all_three_amounts(meter: str, dollars: int) -> None:
    found = bill(TUNED, model="our-tuned-model", meter=meter)
    assert amounts(found) == (dollars, dollars, dollars)
    assert (found.lines[0].rate_id, found.unpriced) == ("price:9", False)


def test_a_percentage_acts_on_top_of_a_card_for_a_model_of_ones_own() -> None:
    off = override("2", models=("*",), scope="key:K", percent_ppm=-100_000)
    assert amounts(bill(TUNED, off, model="our-tuned-model")) == (3, 2.7, 2.7)


def test_a_model_of_ones_own_searches_at_the_providers_rate() -> None:
    assert bill(TUNED, model="our-tuned-model", meter="web_search").cost_nano_usd == 10_000_000 * 1_000_000


def test_a_ceiling_is_never_below_a_card_of_ones_own() -> None:
    dear = override(models=("our-tuned-model",), rates={"input": 500_000_000})
    found = bill(dear, model="our-tuned-model", speed="fast")
    assert (found.unpriced, amounts(found)) == (True, (500, 500, 500))


def test_less_than_a_pico_dollar_is_rounded_up_and_never_lost() -> None:
    lines = [Line(meter="input", quantity=1, model=SONNET)]
    agreed = Overrides([override(percent_ppm=-333_333)])  # 3,000,000 pico less 33.3333 %: 2,000,001 exactly
    thirds = Overrides([override("1", rates={"input": 1}), override("2", acts_on="charge", percent_ppm=-500_000)])
    assert price(lines, TERMS, BOOK, agreed).lines[0].cost_pico_usd == 2_000_001
    assert price(lines, TERMS, BOOK, thirds).lines[0].charge_pico_usd == 1


def test_a_discount_never_pays_out() -> None:
    assert bill(override(percent_ppm=-1_500_000)).cost_nano_usd == 0


def test_the_hold_knows_what_the_bill_knows() -> None:
    dearer = Overrides([override(percent_ppm=500_000)])
    rates = hold_rates(Asked(model=SONNET, input_tokens=1_000), TERMS, BOOK, dearer)
    assert (rates.input_pico_usd, rates.output_pico_usd) == (3_750_000 * 3 // 2, 22_500_000)


@pytest.mark.parametrize("meter", ["input", "cache_read", "cache_write_5m"])
def test_whatever_class_of_input_is_dearest_is_held(meter: str) -> None:
    dear = Overrides([override(rates={meter: 90_000_000})])
    assert hold_rates(Asked(model=SONNET, input_tokens=1), TERMS, BOOK, dear).input_pico_usd == 90_000_000


def test_a_hold_covers_every_basis_that_is_counted_in() -> None:
    dearer = Overrides([override(percent_ppm=500_000, acts_on="charge")])
    asked = Asked(model=SONNET, input_tokens=1_000)
    assert hold_rates(asked, TERMS, BOOK, dearer).output_pico_usd == 15_000_000
    assert hold_rates(asked, TERMS, BOOK, dearer, ("cost", "charge")).output_pico_usd == 22_500_000


def test_an_override_for_a_dated_id_is_held_for_under_the_alias() -> None:
    dearer = Overrides([override(models=(SONNET,), percent_ppm=500_000)])
    assert (
        hold_rates(Asked(model="claude-sonnet-4-5", input_tokens=1), TERMS, BOOK, dearer).output_pico_usd == 22_500_000
    )
