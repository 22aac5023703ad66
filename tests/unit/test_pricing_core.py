"""Which terms a usage record falls under, what is free, and what raises an alert."""

import msgspec

from services.pricing import core
from services.pricing.stores import read_book
from shared.clock import parse
from shared.contracts.attribution import Principal
from shared.contracts.config import PriceOverride, Provider
from shared.contracts.edge import Line, UsageRecorded
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from shared.rates import Book, Overrides

BOOK = Book(read_book())
AT = Position(log_id="L", seq=7)
WHO = Principal(org="O", customer="C", team="T", key="K")
ANTHROPIC = Provider(uid="P", org="O", name="anthropic", kind="anthropic", base_url="https://api.anthropic.com")
SENT = parse("2026-10-06T12:00:00Z")


def record(*lines: Line, **fields: object) -> UsageRecorded:
    usage = UsageRecorded(
        rid="R",
        request_id="Q",
        attempt=0,
        kind="settled",
        shard="0",
        edge="e",
        epoch=1,
        spool_seq=1,
        principal=WHO,
        provider="P",
        admitted_at=SENT - 1,
        sent_at=SENT,
        closed_at=parse("2026-10-08"),
        lines=lines,
    )
    return msgspec.structs.replace(usage, **fields)


def priced(usage: UsageRecorded, provider: Provider | None = ANTHROPIC, *overrides: PriceOverride) -> UsagePriced:
    return core.priced(usage, AT, core.terms_of(usage, provider), BOOK, Overrides(overrides))


READ = Line(meter="cache_read", quantity=1_000_000, model="claude-sonnet-5-5")


def test_the_rate_of_the_moment_it_was_sent_counts_and_not_of_its_end() -> None:
    assert priced(record(READ)).cost_nano_usd == 200_000_000


def test_an_attempt_that_was_never_sent_is_priced_at_its_admission() -> None:
    assert core.terms_of(record(sent_at=0), None).at == SENT - 1


def test_an_entry_names_its_usage_its_version_and_where_it_was_read() -> None:
    usage = record(READ)
    found = priced(usage)
    assert (found.usage, found.usage_at, found.price_version, found.unpriced) == (usage, AT, "2026-11-21", False)
    assert [line.line for line in found.lines] == [READ]
    assert Decoder(UsagePriced).decode(encode(found)) == found


def test_the_key_of_the_attempt_decides_its_negotiated_price() -> None:
    agreed = PriceOverride(uid="1", org="O", models=("claude-*",), scope="key:K", percent_ppm=-500_000)
    assert priced(record(READ), ANTHROPIC, agreed).cost_nano_usd == 100_000_000
    others = record(READ, principal=msgspec.structs.replace(WHO, key="another"))
    assert priced(others, ANTHROPIC, agreed).cost_nano_usd == 200_000_000


def test_nothing_used_costs_nothing_and_still_closes() -> None:
    found = priced(record(kind="void"))
    assert (found.lines, found.cost_nano_usd, found.unpriced) == ((), 0, False)


def test_a_refusal_before_output_is_free() -> None:
    silent = Line(meter="output", quantity=0, model="claude-sonnet-5-5")
    found = priced(record(READ, silent, stop_reason="refusal"))
    assert (found.list_nano_usd, found.cost_nano_usd, found.charge_nano_usd, found.unpriced) == (0, 0, 0, False)
    assert {line.rate_id for line in found.lines} == {core.FREE_REFUSAL}


def test_a_refusal_in_mid_stream_bills_input_and_what_was_said() -> None:
    said = Line(meter="output", quantity=10, model="claude-sonnet-5-5")
    assert priced(record(READ, said, stop_reason="refusal")).cost_nano_usd == 200_000_000 + 100_000


def test_an_unknown_counter_flags_the_entry_and_changes_no_amount() -> None:
    found = priced(record(READ, unknown_counters=("server_tool_use.moon_phases",)))
    assert (found.cost_nano_usd, found.unpriced) == (200_000_000, True)
    assert core.alert(found) == core.Alert((), ("server_tool_use.moon_phases",))


def test_an_alert_names_what_has_no_price() -> None:
    strange = Line(meter="input", quantity=5, model="claude-opus-9")
    found = priced(record(READ, strange, strange))
    assert core.alert(found) == core.Alert((("claude-opus-9", "input"),), ())
    assert core.alert(priced(record(READ))) is None


def test_the_policy_of_the_provider_decides_what_unpriced_costs() -> None:
    strange = record(Line(meter="input", quantity=1_000, model="claude-opus-9"))
    costs = [priced(strange, msgspec.structs.replace(ANTHROPIC, unpriced=p)) for p in ("deny", "ceiling", "flag")]
    assert [found.cost_nano_usd for found in costs] == [15_000_000, 15_000_000, 0]


def test_a_provider_that_is_gone_is_known_by_its_format_and_never_free() -> None:
    assert priced(record(READ), None).cost_nano_usd == 200_000_000
    assert priced(record(Line(meter="input", quantity=1_000, model="x")), None).cost_nano_usd > 0
