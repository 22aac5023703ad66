"""The purse of an edge: what it admits by itself, when it asks for a lease, when it gives one back."""

import msgspec
import pytest

from services.edge.core.lease import IDLE_MICROS, MOST_DRAWN, REFUSED_MICROS, UNANSWERED_MICROS, Purse
from shared.contracts.attribution import Charge
from shared.contracts.budget import Bound, Reserve
from shared.contracts.leases import LeaseAnswered, LeaseAsked, Terms
from tests.fixtures.budget import NOW, SECOND, USD, ask

MILLI = USD // 1_000
TERMS = Terms(
    nano_usd=100 * MILLI,
    until=NOW + 300 * SECOND,
    charges=(Charge(budget_id="team:team:month", period_id="p"),),
    at_cap="cut",
    input_pico_usd=1_000_000,
    output_pico_usd=10_000_000,
    tokens_per_100_bytes=60,
)


def purse_of(terms: Terms | None = TERMS, lease: str = "l1", now: int = NOW) -> Purse:
    purse = Purse()
    lend(purse, lease, terms, now)
    return purse


def lend(purse: Purse, lease: str, terms: Terms | None = TERMS, now: int = NOW, like: Reserve | None = None) -> None:
    asked = LeaseAsked(lease=lease, like=like or ask(), attempts=1)
    purse.answered(asked, LeaseAnswered(lease=lease, owner_epoch=3, terms=terms), now)


def wishes(purse: Purse, now: int = NOW, many: int = 2) -> LeaseAsked | None:
    """The first of so many attempts."""
    found = (purse.wish(ask(f"w{n}"), now, f"l{now}") for n in range(many))
    return next((wish for wish in found if wish), None)


def test_an_attempt_is_admitted_at_its_bound_until_the_lease_is_used_up() -> None:
    purse = purse_of()
    granted = purse.draw(ask("r1", text_bytes=10_000), NOW + 1)
    assert granted
    assert (granted.held_input_tokens, granted.held_output_tokens) == (7_000, 1_000)
    assert (granted.held_nano_usd, granted.held_input_nano_usd) == (17 * MILLI, 7 * MILLI)
    assert (granted.charges, granted.at_cap, granted.lease) == (TERMS.charges, "cut", "l1")
    assert (granted.admitted_at, granted.owner_epoch, granted.remaining_nano_usd) == (NOW + 1, 3, 83 * MILLI)
    assert [bool(purse.draw(ask(f"r{n}", text_bytes=10_000), NOW)) for n in range(2, 8)] == [True] * 4 + [False] * 2
    assert purse.draw(ask("small"), NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"provider": "other"},
        {"credential": "other"},
        {"operation": "other"},
        {"speed": "fast"},
        {"geo": "us"},
        {"cache_ttl": "1h"},
        {"key": "key2"},
        {"max_tokens": 0},
        {"bounds": (Bound(meter="web_search", quantity=1),)},
        {"config_rev": 2},
    ],
)
def test_what_is_of_another_kind_is_for_the_owner(other: dict[str, object]) -> None:
    assert purse_of().draw(ask("r1", **other), NOW) is None  # type: ignore[arg-type]  # fields by name


def test_a_lease_is_asked_for_where_a_second_attempt_comes() -> None:
    purse = Purse()
    assert wishes(purse, many=1) is None
    asked = wishes(purse, many=1)
    assert asked
    assert asked.attempts == 2
    assert wishes(purse) is None  # it is asking


def test_a_refusal_and_a_silence_are_borne_for_a_while() -> None:
    refused, unanswered = Purse(), Purse()
    for purse, answer in ((refused, LeaseAnswered(lease="x", owner_epoch=1)), (unanswered, None)):
        asked = wishes(purse)
        assert asked
        purse.answered(asked, answer, NOW)
        assert wishes(purse) is None
    assert wishes(refused, NOW + REFUSED_MICROS)
    assert wishes(unanswered, NOW + UNANSWERED_MICROS)


def test_what_was_asked_for_in_vain_is_given_back() -> None:
    purse = Purse()
    asked = wishes(purse)
    assert asked
    purse.answered(asked, None, NOW)
    assert purse.to_return() == asked.lease
    purse.returned(asked.lease)
    assert not purse


def test_more_is_asked_for_when_half_is_used_and_the_old_lease_goes_back() -> None:
    purse = purse_of()
    assert wishes(purse) is None
    for n in range(5):
        assert purse.draw(ask(f"r{n}"), NOW)
    assert wishes(purse)
    lend(purse, "l2")
    granted = purse.draw(ask("r6"), NOW)
    assert granted
    assert granted.lease == "l2"
    while drawn := purse.to_tell():
        purse.told(drawn)
    assert purse.to_return() == "l1"


def test_nothing_is_returned_while_the_owner_has_not_been_told_of_all_that_was_drawn() -> None:
    purse = purse_of()
    purse.draw(ask("r1"), NOW)
    purse.shut_down()
    assert purse.to_return() == ""
    drawn = purse.to_tell()
    assert drawn
    assert [draw.ask.rid for draw in drawn.draws] == ["r1"]
    purse.told(drawn)
    assert (purse.to_tell(), purse.to_return()) == (None, "l1")


def test_an_idle_lease_goes_back_but_not_while_nobody_can_be_reached() -> None:
    purse = purse_of()
    purse.tidy(NOW + IDLE_MICROS, 1, reachable=False)
    assert purse.draw(ask("r1"), NOW + IDLE_MICROS)
    purse.tidy(NOW + 2 * IDLE_MICROS, 1, reachable=True)
    assert purse.draw(ask("r2"), NOW + 2 * IDLE_MICROS) is None


def test_a_lease_is_not_drawn_on_after_its_time() -> None:
    assert purse_of().draw(ask("r1"), TERMS.until - 1)
    assert purse_of().draw(ask("r1"), TERMS.until) is None
    purse = purse_of()
    purse.tidy(TERMS.until, 1, reachable=False)
    assert purse.to_return() == "l1"


def test_another_organisation_ends_every_lease() -> None:
    purse = purse_of()
    purse.tidy(NOW, 2, reachable=True)
    assert purse.to_return() == "l1"


def test_after_a_cut_the_owner_decides_for_that_key() -> None:
    purse = purse_of()
    other = ask("r2", key="key2")
    lend(purse, "l2", like=other)
    purse.drop("key")
    assert purse.draw(ask("r1"), NOW) is None
    assert purse.draw(other, NOW)


def test_a_lease_that_comes_after_the_end_goes_straight_back() -> None:
    purse = Purse()
    purse.shut_down()
    lend(purse, "l1")
    assert purse.draw(ask("r1"), NOW) is None
    assert purse.to_return() == "l1"
    assert wishes(purse) is None


def test_how_much_is_asked_for_follows_what_is_used() -> None:
    purse = Purse()
    first = wishes(purse)
    assert first
    for n in range(40):
        purse.wish(ask(f"r{n}"), NOW, "x")
    purse.answered(first, LeaseAnswered(lease=first.lease, owner_epoch=1), NOW)
    later = wishes(purse, NOW + REFUSED_MICROS)
    assert later
    assert later.attempts == 43


def test_what_was_admitted_on_a_lease_is_untold_until_it_has_been_told() -> None:
    purse = purse_of()
    assert purse.draw(ask("r1"), NOW)
    assert purse.is_untold("r1")
    assert not purse.is_untold("of the owner")
    drawn = purse.to_tell()
    assert drawn
    purse.told(drawn)
    assert not purse.is_untold("r1")


def test_an_attempt_of_before_a_change_leaves_a_lease_of_after_it_alone() -> None:
    purse = Purse()
    lend(purse, "l1", like=ask(config_rev=2))
    assert purse.draw(ask("r1", config_rev=1), NOW) is None
    assert purse.draw(ask("r2", config_rev=2), NOW)
    assert purse.draw(ask("r3", config_rev=3), NOW) is None
    assert purse.draw(ask("r4", config_rev=2), NOW) is None, "somebody knows a newer organisation"


def test_a_lease_is_not_drawn_on_without_end() -> None:
    purse = purse_of(msgspec.structs.replace(TERMS, nano_usd=1_000_000 * USD))
    for n in range(MOST_DRAWN):
        assert purse.draw(ask(f"r{n}"), NOW)
    assert purse.draw(ask("one more"), NOW) is None
