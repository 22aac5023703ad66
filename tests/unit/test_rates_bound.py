"""The hold is never below the bill, and the arithmetic keeps its promises for any usage."""

from typing import get_args

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pricing.stores import read_book
from shared.clock import parse
from shared.contracts.config import PriceOverride
from shared.contracts.edge import Line
from shared.rates import Asked, Book, Overrides, Terms, hold_rates, price
from shared.rates.book import FOR_EVER
from shared.rates.overrides import Basis

BASES: tuple[Basis, ...] = get_args(Basis)
BOOK = Book(read_book())
NOW = parse("2026-11-21")
MODELS = sorted({model for card in read_book().cards for model in card.models})
SPELLINGS = [*MODELS, "claude-opus-9", "who-knows", "our-tuned-model", "eu.anthropic.claude-opus-4-6-v1"]
INPUTS = ("input", "cache_read", "cache_write_5m", "cache_write_1h")

prices = st.builds(
    PriceOverride,
    uid=st.sampled_from("1234"),
    org=st.just("O"),
    models=st.sampled_from((("*",), ("claude-*",), ("claude-opus-5",), ("our-tuned-model",), ("claude-haiku-4-5*",))),
    scope=st.sampled_from(("", "provider:P", "customer:C", "team:T", "key:K")),
    percent_ppm=st.integers(-1_000_000, 3_000_000),
    rates=st.just({})
    | st.dictionaries(st.sampled_from((*INPUTS, "output", "thinking")), st.integers(0, 10**9), min_size=1),
    acts_on=st.sampled_from(BASES),
)
many_prices = st.lists(prices, max_size=4).map(Overrides)
terms_of = st.builds(
    Terms,
    at=st.sampled_from((NOW, parse("2026-10-01"), parse("2020-06-01"))),
    provider_kind=st.sampled_from(("anthropic", "bedrock", "vertex", "openai")),
    provider=st.just("P"),
    org=st.just("O"),
    customer=st.just("C"),
    team=st.just("T"),
    key=st.just("K"),
    unpriced=st.sampled_from(("deny", "ceiling", "flag")),
)
some = st.integers(0, 300_000)
quantities = st.fixed_dictionaries(dict.fromkeys((*INPUTS, "output", "thinking"), some) | {"web_search": some})


@st.composite
def asked_and_used(draw: st.DrawFn) -> tuple[Asked, dict[str, int], list[Line]]:
    """What a body asks for, and usage that stays within it."""
    ttl = draw(st.sampled_from(("", "5m", "1h")))
    used = draw(quantities)
    if ttl != "1h":
        used["cache_write_1h"] = 0
    prompt = sum(used[meter] for meter in INPUTS)
    asked = Asked(
        model=draw(st.sampled_from(SPELLINGS)),
        input_tokens=prompt + draw(st.sampled_from((0, 1, 100_000))),
        speed=draw(st.sampled_from(("standard", "fast"))),
        geo=draw(st.sampled_from(("", "us", "global"))),
        cache_ttl=ttl,
        region=draw(st.sampled_from(("", "eu", "global"))),
    )
    # an unsupported `fast` runs at standard speed, silently
    speed = draw(st.sampled_from(sorted({"standard", asked.speed})))
    lines = [
        Line(meter=meter, quantity=quantity, model=asked.model, speed=speed, geo=asked.geo, region=asked.region)
        for meter, quantity in used.items()
    ]
    return asked, used, lines


@settings(max_examples=400, deadline=None)
@given(asked_and_used(), terms_of, many_prices, st.sampled_from(BASES))
def test_the_hold_is_never_below_the_bill(
    case: tuple[Asked, dict[str, int], list[Line]], terms: Terms, overrides: Overrides, basis: Basis
) -> None:
    asked, used, lines = case
    held = hold_rates(asked, terms, BOOK, overrides, (basis,)).hold(
        asked.input_tokens, used["output"] + used["thinking"], used["web_search"]
    )
    billed = price(lines, terms, BOOK, overrides)
    assert held.nano_usd >= getattr(billed, f"{basis}_nano_usd")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MODELS), quantities, st.data())
def test_a_split_call_costs_at_most_a_nano_dollar_more_and_never_less(
    model: str, used: dict[str, int], data: st.DataObject
) -> None:
    if model == "claude-haiku-5-5":
        used |= {meter: min(used[meter], 25_000) for meter in INPUTS}  # one band for the whole and its parts
    first = {meter: data.draw(st.integers(0, quantity)) for meter, quantity in used.items()}
    second = {meter: quantity - first[meter] for meter, quantity in used.items()}
    whole, one, other = (cost(model, part) for part in (used, first, second))
    assert whole <= one + other <= whole + 1


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SPELLINGS), quantities, st.sampled_from(("input", "output", "cache_read", "web_search")))
def test_more_usage_never_costs_less(model: str, used: dict[str, int], meter: str) -> None:
    assert cost(model, used) <= cost(model, used | {meter: used[meter] + 1})


@given(st.integers(-1_000_000, 1_000_000), some)
def test_a_percentage_is_exact(ppm: int, tokens: int) -> None:
    agreed = Overrides([PriceOverride(uid="1", org="", models=("*",), percent_ppm=ppm)])
    lines = [Line(meter="input", quantity=tokens, model="claude-sonnet-5")]
    found = price(lines, Terms(at=NOW), BOOK, agreed)
    assert found.list_nano_usd == tokens * 2_000
    assert found.cost_nano_usd == -(-tokens * 2_000 * (1_000_000 + ppm) // 1_000_000)


@settings(deadline=None)
@given(st.sampled_from(SPELLINGS), st.integers(-5, 10**13))
def test_money_buys_as_many_tokens_as_it_holds(model: str, nano_usd: int) -> None:
    rates = hold_rates(Asked(model=model, input_tokens=1_000), Terms(at=NOW), BOOK, Overrides())
    tokens = rates.output_tokens_for(nano_usd)
    assert rates.hold(0, tokens).nano_usd <= max(nano_usd, 0)
    assert rates.hold(0, tokens + 1).nano_usd > nano_usd


def test_output_that_costs_nothing_has_no_end() -> None:
    free = hold_rates(Asked(model="who-knows", input_tokens=1), Terms(at=NOW, unpriced="flag"), BOOK, Overrides())
    assert free.output_tokens_for(1) == FOR_EVER


def test_a_bound_within_the_low_band_is_held_at_the_low_band() -> None:
    def output_rate(input_tokens: int) -> int:
        asked = Asked(model="claude-haiku-5-5", input_tokens=input_tokens)
        return hold_rates(asked, Terms(at=NOW), BOOK, Overrides()).output_pico_usd

    assert [output_rate(n) for n in (0, 100_000, 100_001)] == [500_000, 500_000, 2_500_000]


def test_a_band_that_a_smaller_prompt_falls_into_is_held_for_even_if_it_is_the_dearer_one() -> None:
    cards = [
        msgspec.structs.replace(card, prompt_above=100_000, prompt_up_to=None)
        if card.prompt_up_to
        else msgspec.structs.replace(card, prompt_above=0, prompt_up_to=100_000)
        for card in read_book().cards
        if "claude-haiku-5-5" in card.models
    ]
    turned = Book(msgspec.structs.replace(read_book(), cards=tuple(cards)))
    asked = Asked(model="claude-haiku-5-5", input_tokens=200_000)
    assert hold_rates(asked, Terms(at=NOW), turned, Overrides()).output_pico_usd == 2_500_000


def test_one_hour_writes_are_held_only_where_the_body_asks_for_them() -> None:
    def input_rate(ttl: str) -> int:
        asked = Asked(model="claude-opus-5-5", input_tokens=10, cache_ttl=ttl)
        return hold_rates(asked, Terms(at=NOW), BOOK, Overrides()).input_pico_usd

    assert [input_rate(ttl) for ttl in ("", "5m", "1h")] == [5_000_000, 5_000_000, 8_000_000]


def test_a_model_without_a_card_holds_the_ceiling_and_says_so() -> None:
    rates = hold_rates(Asked(model="claude-opus-9", input_tokens=10), Terms(at=NOW), BOOK, Overrides())
    assert (rates.unpriced, rates.input_pico_usd, rates.output_pico_usd) == (True, 18_750_000, 75_000_000)


def test_fast_on_a_model_that_is_not_sold_fast_is_held_at_the_ceiling_but_is_no_unpriced_model() -> None:
    asked = Asked(model="claude-opus-4-7", input_tokens=10, speed="fast")
    rates = hold_rates(asked, Terms(at=NOW), BOOK, Overrides())
    assert (rates.unpriced, rates.output_pico_usd) == (False, 75_000_000)


def cost(model: str, used: dict[str, int]) -> int:
    lines = [Line(meter=meter, quantity=quantity, model=model) for meter, quantity in used.items()]
    return price(lines, Terms(at=NOW), BOOK, Overrides()).cost_nano_usd
