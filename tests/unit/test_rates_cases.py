"""The worked cases of the price rules, and the edges of dates, bands and modifiers, to the nano-dollar."""

import pytest

from services.pricing.stores import read_book
from shared.clock import parse
from shared.contracts.edge import Line
from shared.rates import Book, Overrides, Priced, Terms, price

BOOK = Book(read_book())
NOW = parse("2026-11-21T12:00:00Z")
METERS = {
    "i": "input",
    "w5": "cache_write_5m",
    "w1": "cache_write_1h",
    "r": "cache_read",
    "o": "output",
    "t": "thinking",
    "s": "web_search",
    "f": "web_fetch",
}


def usage(
    model: str,
    quantities: dict[str, int],
    speed: str = "standard",
    geo: str = "",
    region: str = "",
    batch: bool = False,
    iteration: int = 0,
) -> list[Line]:
    return [
        Line(
            meter=METERS[short],
            quantity=quantity,
            model=model,
            speed=speed,
            geo=geo,
            region=region,
            batch=batch,
            iteration=iteration,
        )
        for short, quantity in quantities.items()
    ]


def bill(lines: list[Line], at: int = NOW, kind: str = "anthropic", unpriced: str = "deny") -> Priced:
    return price(lines, Terms(at=at, provider_kind=kind, unpriced=unpriced), BOOK, Overrides())


SMALL = {"i": 1_000, "w5": 1_500, "w1": 500, "r": 30_000, "o": 500, "s": 2}
LARGE = {"i": 10_000, "w5": 1_500, "w1": 500, "r": 240_000, "o": 500, "s": 2}
CASES = {
    "1": (usage("claude-sonnet-4-5", {"i": 3, "w5": 12_304, "o": 550}), 54_399_000),
    "2": (usage("claude-sonnet-4-5", SMALL), 48_125_000),
    "3": (usage("claude-opus-4-8", SMALL, speed="fast"), 113_750_000),
    "4": (usage("claude-opus-4-8", SMALL, speed="fast", geo="us"), 123_125_000),
    "5": (usage("claude-haiku-5-5", LARGE), 39_687_500),
    "6-99999": (usage("claude-haiku-5-5", {"i": 99_999, "o": 1_000}), 10_499_900),
    "6-100000": (usage("claude-haiku-5-5", {"i": 100_000, "o": 1_000}), 10_500_000),
    "6-100001": (usage("claude-haiku-5-5", {"i": 100_001, "o": 1_000}), 52_500_500),
    "7": (usage("claude-opus-5-5", LARGE), 129_500_000),
    "8": (usage("claude-sonnet-4-6", {"i": 400_000, "o": 1_000}), 1_215_000_000),
    "9": (
        usage("claude-opus-4-6", {"i": 1_000, "o": 100})
        + usage("claude-opus-4-6", {"i": 2_000, "o": 200}, iteration=1),
        22_500_000,
    ),
    "11-sonnet-5-5": (usage("claude-sonnet-5-5", {"r": 1_000_000}), 100_000_000),
    "11-fable-5-1": (usage("claude-fable-5-1", {"r": 1_000_000}), 250_000_000),
    "12": (usage("claude-haiku-4-5", {"i": 100, "o": 50, "s": 1}), 10_350_000),
}


@pytest.mark.parametrize(("lines", "nano_usd"), CASES.values(), ids=CASES)
def test_a_worked_case_costs_what_the_rules_say(lines: list[Line], nano_usd: int) -> None:
    found = bill(lines)
    assert (found.list_nano_usd, found.cost_nano_usd, found.charge_nano_usd) == (nano_usd, nano_usd, nano_usd)
    assert not found.unpriced
    assert all(line.rate_id for line in found.lines)


@pytest.mark.parametrize("region", ["regional", "eu", "eu-west-1"])
def test_worked_case_10_a_regional_endpoint_of_bedrock_takes_ten_per_cent_more(region: str) -> None:
    quantities = {"i": 10, "w5": 32_435, "r": 66_360, "o": 5_120}
    lines = usage("eu.anthropic.claude-opus-4-5-20251101-v1:0", quantities, region=region)
    assert bill(lines, kind="bedrock").cost_nano_usd == 400_343_625


@pytest.mark.parametrize("region", ["", "global"])
def test_a_global_endpoint_costs_the_list_price(region: str) -> None:
    lines = usage("claude-opus-4-5@20251101", {"i": 1_000_000}, region=region)
    assert bill(lines, kind="vertex").cost_nano_usd == 5_000_000_000


@pytest.mark.parametrize(
    ("at", "nano_usd"), [("2026-10-06T23:59:59.999999Z", 200_000_000), ("2026-10-07T00:00:00Z", 100_000_000)]
)
def test_the_card_in_force_when_the_attempt_was_sent_prices_it(at: str, nano_usd: int) -> None:
    assert bill(usage("claude-sonnet-5-5", {"r": 1_000_000}), at=parse(at)).cost_nano_usd == nano_usd


@pytest.mark.parametrize(
    ("model", "day"),
    [("claude-fable-5-2", "2026-11-09"), ("claude-opus-5-5", "2026-09-22"), ("claude-haiku-5-5", "2026-10-07")],
)
def test_a_model_has_no_price_before_its_first_day(model: str, day: str) -> None:
    assert bill(usage(model, {"i": 1}), at=parse(day) - 1).unpriced
    assert not bill(usage(model, {"i": 1}), at=parse(day)).unpriced


def test_every_class_of_the_prompt_counts_for_the_band_and_output_does_not() -> None:
    quarter = {"i": 25_000, "w5": 25_000, "w1": 25_000, "r": 25_000}
    low = bill(usage("claude-haiku-5-5", {**quarter, "o": 500_000}))
    high = bill(usage("claude-haiku-5-5", {**quarter, "r": 25_001, "o": 500_000}))
    assert {line.rate_id for line in low.lines} == {"anthropic/claude-haiku-5-5/to-100k"}
    assert {line.rate_id for line in high.lines} == {"anthropic/claude-haiku-5-5/above-100k"}


def test_each_iteration_has_a_band_of_its_own() -> None:
    lines = usage("claude-haiku-5-5", {"i": 60_000}) + usage("claude-haiku-5-5", {"i": 60_000}, iteration=1)
    assert bill(lines).cost_nano_usd == 12_000_000


def test_each_iteration_is_billed_at_its_own_model() -> None:
    lines = usage("claude-opus-4-6", {"o": 1_000}) + usage("claude-haiku-4-5", {"o": 1_000}, iteration=1)
    assert bill(lines).cost_nano_usd == 25_000_000 + 5_000_000


def test_thinking_costs_what_output_costs() -> None:
    whole = bill(usage("claude-opus-5-5", {"o": 1_000}))
    apart = bill(usage("claude-opus-5-5", {"o": 400, "t": 600}))
    assert apart.cost_nano_usd == whole.cost_nano_usd == 20_000_000


def test_a_batch_is_half_price_but_its_searches_are_not() -> None:
    lines = usage("claude-sonnet-4-5", {"i": 1_000_000, "o": 100_000, "s": 1}, batch=True)
    assert bill(lines).cost_nano_usd == 1_500_000_000 + 750_000_000 + 10_000_000


@pytest.mark.parametrize(
    ("model", "geo", "nano_usd"),
    [
        ("claude-opus-4-6", "us", 5_500_000_000),
        ("claude-opus-4-6", "global", 5_000_000_000),
        ("claude-opus-4-6", "not_available", 5_000_000_000),
        ("claude-opus-4-5", "us", 5_000_000_000),
        ("claude-mythos-5", "us", 11_000_000_000),
    ],
)
def test_geo_us_costs_ten_per_cent_more_from_4_6_on(model: str, geo: str, nano_usd: int) -> None:
    assert bill(usage(model, {"i": 1_000_000}, geo=geo)).cost_nano_usd == nano_usd


def test_all_modifiers_stack_exactly() -> None:
    lines = usage("claude-haiku-5-5", {"r": 1}, geo="us", region="eu", batch=True)
    found = bill(lines, kind="vertex")
    assert found.lines[0].cost_pico_usd == 10_000 * 110 * 110 * 50 // 100**3 == 6_050
    assert found.cost_nano_usd == 7  # 6.05 nano-USD, rounded up once


def test_an_entry_is_rounded_up_once_and_not_by_line() -> None:
    found = bill(usage("claude-haiku-5-5", {"i": 1, "w5": 1, "r": 1}))  # 100,000 + 125,000 + 10,000 pico
    assert found.cost_nano_usd == 235
    assert bill(usage("claude-haiku-5-5", {"r": 1, "w5": 1}, batch=True)).cost_nano_usd == 68  # 67.5


def test_fast_doubles_fable_5_2_in_every_class() -> None:
    one = dict.fromkeys(("i", "w5", "w1", "r", "o", "t"), 1_000)
    standard = bill(usage("claude-fable-5-2", one)).cost_nano_usd
    assert bill(usage("claude-fable-5-2", one, speed="fast")).cost_nano_usd == 2 * standard


def test_web_fetch_is_free_by_an_explicit_rate() -> None:
    found = bill(usage("claude-opus-5", {"f": 7}))
    assert (found.cost_nano_usd, found.unpriced, found.lines[0].rate_id) == (0, False, "anthropic/web_fetch")


def test_nothing_costs_nothing() -> None:
    found = bill([])
    assert (found.cost_nano_usd, found.unpriced) == (0, False)


@pytest.mark.parametrize("policy", ["deny", "ceiling"])
@pytest.mark.parametrize(
    ("model", "speed", "input_usd_per_million", "output_usd_per_million"),
    [
        ("claude-opus-9", "standard", 15, 75),
        ("claude-sonnet-9", "standard", 3, 15),
        ("claude-haiku-9", "standard", 1, 5),
        ("claude-3-opus-20240229", "standard", 15, 75),
        ("claude-opus-4-7", "fast", 15, 75),  # sold at standard speed only
        ("who-knows", "standard", 16, 80),  # the dearest of the provider: fable 5.2, fast
    ],
)
def test_unpriced_is_never_free(
    policy: str, model: str, speed: str, input_usd_per_million: int, output_usd_per_million: int
) -> None:
    found = bill(usage(model, {"i": 1_000, "o": 1_000}, speed=speed), unpriced=policy)
    assert found.unpriced
    assert [line.rate_id for line in found.lines] == ["", ""]
    amount = (input_usd_per_million + output_usd_per_million) * 1_000_000
    assert (found.list_nano_usd, found.cost_nano_usd, found.charge_nano_usd) == (amount, amount, amount)


def test_a_ceiling_takes_the_surcharges_too() -> None:
    lines = usage("claude-opus-9", {"i": 1_000}, geo="us")
    assert bill(lines).cost_nano_usd == 16_500_000


def test_a_flagged_model_costs_nothing_yet_and_says_so() -> None:
    found = bill(usage("claude-opus-9", {"i": 1_000}), unpriced="flag")
    assert (found.cost_nano_usd, found.unpriced) == (0, True)


def test_an_unknown_meter_is_unpriced_and_costs_the_dearest_token() -> None:
    lines = [Line(meter="holograms", quantity=2, model="claude-opus-5"), *usage("claude-opus-5", {"i": 1})]
    found = bill(lines)
    assert found.unpriced
    assert [line.rate_id for line in found.lines] == ["", "anthropic/claude-opus-5"]
    assert found.lines[0].cost_pico_usd == 2 * 75_000_000


def test_an_unknown_meter_without_quantity_changes_nothing() -> None:
    found = bill([Line(meter="holograms", quantity=0, model="claude-opus-5")])
    assert (found.cost_nano_usd, found.unpriced) == (0, False)


def test_a_search_that_a_provider_does_not_sell_costs_the_dearest_search() -> None:
    found = bill(usage("claude-opus-5", {"s": 1}), kind="bedrock")
    assert (found.cost_nano_usd, found.unpriced) == (10_000_000, True)


def test_a_kind_of_provider_without_cards_takes_the_dearest_of_the_family_anywhere() -> None:
    found = bill(usage("claude-opus-5", {"i": 1_000}), kind="openai")
    assert (found.cost_nano_usd, found.unpriced) == (15_000_000, True)
