"""Leases and money that is granted until a moment: neither may outlive it."""

import pytest

from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from shared.contracts.leases import LeaseAsked
from tests.fixtures.budget import USD, ask, organisation, rule
from tests.fixtures.travel import Traveller, micros

DAY = "key:key:day"
ENDS = "2026-11-21T12:00:00Z"


@pytest.fixture
def desk() -> Traveller:
    """100 USD a day, of which 98 are spent, and 100 more until noon; it is two minutes before."""
    found = Traveller(organisation(key=[rule("key", 100, "day")]), "2026-11-21T10:00:00Z")
    found.grant_usd(100, DAY, ENDS)
    found.at("2026-11-21T11:58:00Z")
    found.bill(98)
    return found


def lend(desk: Traveller, lease: str) -> Lent:
    like = ask("like", config_rev=desk.rules.catalogue.config_rev)
    found = desk.do(Lend(LeaseAsked(lease=lease, like=like, attempts=1_000), Policy()))
    assert isinstance(found, Lent)
    assert found.terms
    return found


def test_a_lease_ends_with_the_grant_that_pays_for_it(desk: Traveller) -> None:
    terms = lend(desk, "l1").terms
    assert terms and terms.until == micros(ENDS)


def test_what_was_only_lent_is_not_used_of_a_grant_that_ends(desk: Traveller) -> None:
    for name in ("l1", "l2", "l3"):
        lend(desk, name)
    desk.at("2026-11-21T12:00:01Z")
    for name in ("l1", "l2", "l3"):
        desk.do(GiveBack(name))
    assert desk.allowance(DAY).nano_usd == 100 * USD
