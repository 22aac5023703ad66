"""Who gets in."""

import msgspec
import pytest

from services.budget.core.admission import Rules
from services.budget.core.periods import Calendar
from services.budget.core.tariff import Tariff
from shared.contracts.budget import Bound, Denied, Granted, Queued, Withdraw
from shared.contracts.config import PriceOverride
from shared.rates.size import IMAGE_TOKENS, PAGE_TOKENS, SEARCH_TOKENS
from tests.fixtures.budget import BOOK, DAY, HOUR, NOW, SECOND, USD, Desk, ask, organisation, rule, usage

MILLI = USD // 1_000


def test_a_key_without_budgets_is_held_too() -> None:
    desk = Desk(organisation())
    granted = desk.grant(ask())
    assert (granted.held_input_tokens, granted.held_output_tokens) == (1_000, 1_000)
    assert granted.held_nano_usd == 11 * MILLI
    assert granted.charges == ()
    assert granted.standings == ()
    assert list(desk.state.holds) == ["r1"]


def test_the_hold_is_booked_on_every_budget_of_the_path() -> None:
    desk = Desk(
        organisation(
            org=[rule("org", 9, "year")],
            customer=[rule("customer", 8)],
            team=[rule("team", 7), rule("team", 1, "day")],
            key=[rule("key", 6, "total")],
            config=[rule("provider_config", 5, "week")],
        )
    )
    granted = desk.grant(ask())
    ids = [charge.budget_id for charge in granted.charges]
    assert ids == [
        "org:org:year",
        "customer:cus:month",
        "team:team:month",
        "team:team:day",
        "key:key:total",
        "provider_config:conf:week",
    ]
    assert {desk.booked(budget_id) for budget_id in ids} == {(0, 11 * MILLI)}
    assert granted.remaining_nano_usd == USD - 11 * MILLI


@pytest.mark.parametrize(
    ("tier", "budget_id"),
    [
        ("org", "org:org:month"),
        ("customer", "customer:cus:month"),
        ("team", "team:team:month"),
        ("key", "key:key:month"),
        ("config", "provider_config:conf:month"),
    ],
)
def test_each_tier_refuses_once_it_is_spent(tier: str, budget_id: str) -> None:
    scope = "provider_config" if tier == "config" else tier
    desk = Desk(organisation(**{tier: [rule(scope, 0.5)]}))  # type: ignore[arg-type]  # one tier by name
    desk.grant(ask("r1"))
    desk.close(usage("r1", nano_usd=USD // 2))
    denied = desk.deny(ask("r2"))
    assert (denied.reason, denied.budget_id) == ("spent", budget_id)
    assert (denied.limit_nano_usd, denied.spent_nano_usd, denied.held_nano_usd) == (USD // 2, USD // 2, 0)
    assert denied.need_nano_usd == 11 * MILLI
    assert denied.contact == "platform@acme.example"


def test_a_refusal_says_when_the_budget_begins_anew() -> None:
    desk = Desk(organisation(key=[rule("key", 0, "day")]))
    denied = desk.deny(ask())
    assert denied.resets_at == NOW + 14 * HOUR
    assert denied.retry_after_s == 14 * 3_600


def test_a_total_budget_never_resets() -> None:
    desk = Desk(organisation(key=[rule("key", 0, "total")]))
    denied = desk.deny(ask())
    assert (denied.resets_at, denied.retry_after_s) == (0, 86_400)


def test_fifty_parallel_requests_never_hold_more_than_the_cap() -> None:
    desk = Desk(organisation(key=[rule("key", 5)]))
    # 1,000 tokens of input and 49,900 of output: 0.50 USD each
    answers = [desk.do(ask(f"r{n}", max_tokens=49_900, stream=n % 2 == 0)) for n in range(50)]
    granted = [answer for answer in answers if isinstance(answer, Granted)]
    assert len(granted) == 10
    assert sum(g.held_nano_usd for g in granted) == 5 * USD
    assert sum(isinstance(answer, Queued) for answer in answers) == 40
    desk.now += 20 * SECOND
    desk.tick()
    denied = [late.answer for late in desk.late if isinstance(late.answer, Denied)]
    assert [answer.reason for answer in denied] == ["busy"] * 40
    assert all(1 <= answer.retry_after_s <= 5 for answer in denied)


def test_a_small_budget_works_with_a_client_that_asks_for_much_output() -> None:
    desk = Desk(organisation(key=[rule("key", 0.5)]))
    granted = desk.grant(ask(max_tokens=128_000))
    assert granted.held_nano_usd == USD // 2
    assert granted.held_output_tokens == 49_900
    assert granted.at_cap == "cut"


def test_a_request_that_does_not_stream_is_held_at_its_bound_or_refused() -> None:
    desk = Desk(organisation(key=[rule("key", 0.5)]))
    denied = desk.deny(ask(max_tokens=128_000, stream=False))
    assert (denied.reason, denied.need_nano_usd, denied.input_bound) == ("spent", USD * 1_281 // 1_000, 1_000)
    assert desk.grant(ask("r2", max_tokens=49_900, stream=False)).held_output_tokens == 49_900


def test_output_that_is_not_shown_cannot_be_cut_and_is_held_in_full() -> None:
    desk = Desk(organisation(key=[rule("key", 0.5)]))
    assert desk.deny(ask(max_tokens=128_000, visible_output=False)).reason == "spent"


def test_what_is_free_later_is_refused_as_busy_at_the_fullest_budget() -> None:
    desk = Desk(organisation(team=[rule("team", 1)], key=[rule("key", 0.5)]))
    desk.grant(ask("r1", max_tokens=30_000))
    denied = desk.deny(ask("r2", max_tokens=30_000, stream=False, may_wait=False))
    assert (denied.reason, denied.budget_id, denied.held_nano_usd) == ("busy", "key:key:month", 301 * MILLI)
    desk.close(usage("r1", nano_usd=MILLI))
    desk.grant(ask("r2", max_tokens=30_000))


def test_once_it_has_waited_long_enough_a_stream_takes_what_there_is() -> None:
    desk = Desk(organisation(key=[rule("key", 0.5)]))
    desk.grant(ask("r1", max_tokens=30_000))
    assert desk.grant(ask("r2", max_tokens=30_000, waited_ms=20_000)).held_output_tokens == 19_800


def test_soft_and_shadow_budgets_are_booked_and_never_decide() -> None:
    desk = Desk(organisation(key=[rule("key", 0.005, mode="soft"), rule("key", 0.001, "day", mode="shadow")]))
    desk.grant(ask("r1"))
    desk.close(usage("r1", nano_usd=11 * MILLI))
    granted = desk.grant(ask("r2"))
    assert granted.at_cap == "finish"
    assert [s.budget_id for s in granted.standings] == ["key:key:month"]
    assert granted.standings[0].utilization_ppm == 2_200_000
    assert granted.standings[0].surpassed_ppm == 950_000
    assert desk.booked("key:key:day") == (11 * MILLI, 11 * MILLI)


def test_standings_name_the_fullest_budget_first_without_what_is_held() -> None:
    desk = Desk(organisation(team=[rule("team", 100)], key=[rule("key", 0.04, alerts_ppm=(250_000, 950_000))]))
    desk.grant(ask("r1"))
    desk.close(usage("r1", nano_usd=11 * MILLI))
    standings = desk.grant(ask("r2")).standings
    assert [(s.budget_id, s.utilization_ppm, s.surpassed_ppm) for s in standings] == [
        ("key:key:month", 275_000, 250_000),
        ("team:team:month", 110, 0),
    ]


def test_asked_again_it_answers_the_same_and_holds_once() -> None:
    desk = Desk(organisation(key=[rule("key", 1)]))
    first = desk.grant(ask())
    desk.now += HOUR
    again = desk.grant(ask())
    assert again.charges == first.charges
    assert (again.held_nano_usd, again.held_output_tokens) == (first.held_nano_usd, first.held_output_tokens)
    assert again.admitted_at == first.admitted_at
    assert desk.booked("key:key:month") == (0, 11 * MILLI)
    assert len(desk.log) == 1


@pytest.mark.parametrize("how", ["closed", "withdrawn", "withdrawn before it came"])
def test_a_finished_rid_is_too_late(how: str) -> None:
    desk = Desk(organisation(key=[rule("key", 1)]))
    if how != "withdrawn before it came":
        desk.grant(ask())
    if how == "closed":
        desk.close(usage())
    else:
        desk.do(Withdraw(rid="r1", edge="e1", epoch=1))
    assert desk.deny(ask()).reason == "too_late"
    assert desk.booked("key:key:month")[1] == 0


@pytest.mark.parametrize("more", [{"key": "nobody"}, {"provider": "elsewhere"}])
def test_a_key_or_provider_that_is_not_governed_is_unknown(more: dict[str, str]) -> None:
    assert Desk(organisation()).deny(ask(**more)).reason == "unknown"  # type: ignore[arg-type]  # by name


def test_a_revoked_key_is_unknown_to_the_owner_even_when_an_edge_is_behind() -> None:
    assert Desk(organisation(revoked_at=NOW - 1)).deny(ask()).reason == "unknown"


def test_a_model_without_a_price_is_refused_under_a_hard_budget() -> None:
    desk = Desk(organisation(key=[rule("key", 100)]))
    denied = desk.deny(ask(model="claude-unheard-of"))
    assert (denied.reason, denied.budget_id) == ("unpriced", "key:key:month")


def test_a_model_without_a_price_is_held_at_the_ceiling_where_the_provider_allows_it() -> None:
    desk = Desk(organisation(key=[rule("key", 100)], unpriced="ceiling"))
    assert desk.grant(ask(model="claude-unheard-of")).held_nano_usd >= 11 * MILLI


def test_a_model_without_a_price_is_let_through_where_no_hard_budget_applies() -> None:
    assert Desk(organisation(key=[rule("key", 1, mode="soft")])).grant(ask(model="claude-unheard-of")).held_nano_usd > 0


@pytest.mark.parametrize(
    ("bounds", "tokens"),
    [
        ((Bound(meter="text_bytes", quantity=50_001),), 1_000 + 30_001),
        ((Bound(meter="text_bytes", quantity=0), Bound(meter="image", quantity=2)), 1_000 + 2 * IMAGE_TOKENS),
        ((Bound(meter="text_bytes", quantity=0), Bound(meter="page", quantity=3)), 1_000 + 3 * PAGE_TOKENS),
        ((Bound(meter="text_bytes", quantity=50_000), Bound(meter="input_tokens", quantity=12_000)), 12_000),
        ((), 1_000 + 600),
        ((Bound(meter="unboundable", quantity=0),), 200_000),
        ((Bound(meter="unboundable", quantity=3),), 600_000),
        ((Bound(meter="text_bytes", quantity=0), Bound(meter="web_search", quantity=1)), 2 * 1_000 + SEARCH_TOKENS),
        ((Bound(meter="text_bytes", quantity=0), Bound(meter="web_search", quantity=99)), 100 * 200_000),
        ((Bound(meter="hologram", quantity=1),), 200_000),
    ],
)
def test_the_input_bound_follows_what_the_body_shows(bounds: tuple[Bound, ...], tokens: int) -> None:
    granted = Desk(organisation()).grant(ask(bounds=bounds, input_bytes=1_000))
    assert granted.held_input_tokens == tokens


def test_a_budget_that_holds_the_bound_counts_a_token_for_each_byte() -> None:
    desk = Desk(organisation(key=[rule("key", 100, hold="bound")]))
    assert desk.grant(ask(text_bytes=50_000)).held_input_tokens == 51_000


def test_without_max_tokens_the_model_decides_the_bound() -> None:
    assert Desk(organisation()).grant(ask(max_tokens=0)).held_output_tokens == 32_000


def test_what_cannot_be_bounded_is_refused_where_the_whole_of_it_is_not_left() -> None:
    desk = Desk(organisation(key=[rule("key", 0.1)]))
    assert desk.deny(ask(bounds=(Bound(meter="unboundable", quantity=1),))).reason == "unboundable"


def test_the_owners_clock_decides_the_period() -> None:
    berlin = rule("key", 0.02, "day", timezone="Europe/Berlin")
    desk = Desk(organisation(key=[berlin]), now=NOW)
    desk.grant(ask("r1"))
    desk.queue(ask("r2"))
    desk.now = Calendar("day", "Europe/Berlin").at(NOW).end
    desk.tick()
    granted = desk.told("r2")
    assert isinstance(granted, Granted)
    assert granted.charges[0].period_id == "2026-11-22T00:00:00+01:00[Europe/Berlin]"


def test_a_raised_limit_lets_in_and_keeps_what_was_spent() -> None:
    desk = Desk(organisation(key=[rule("key", 0.01)]))
    assert desk.deny(ask("r1")).reason == "spent"
    desk.govern(organisation(key=[rule("key", 0.03)]))
    desk.grant(ask("r2"))
    desk.close(usage("r2", nano_usd=10 * MILLI))
    desk.govern(organisation(key=[rule("key", 0.02)]), rev=3)
    denied = desk.deny(ask("r3"))
    assert (denied.reason, denied.spent_nano_usd) == ("spent", 10 * MILLI)


def test_a_members_share_of_a_team_budget_is_its_own_cap() -> None:
    desk = Desk(organisation(team=[rule("team", 0.02, per="member")]))
    desk.grant(ask("r1"))
    assert desk.deny(ask("r2", may_wait=False)).budget_id == "team:team:month:member:key"
    desk.grant(ask("r3", key="key2"))


def test_a_session_has_a_budget_of_its_own_inside_its_key() -> None:
    desk = Desk(organisation(session_usd=0.02))
    desk.grant(ask("r1", session="s1"))
    assert desk.deny(ask("r2", session="s1", may_wait=False)).budget_id == "session:key:total:s1"
    desk.grant(ask("r3", session="s2"))


@pytest.mark.parametrize(
    ("match", "concerns"),
    [
        ({"model": "claude-r*"}, True),
        ({"model": "claude-opus-*"}, False),
        ({"provider": "anthropic"}, True),
        ({"provider": "bedrock"}, False),
        ({"tag": "cost_center=47*"}, True),
        ({"tag": "cost_center=1"}, False),
        ({"operation": "messages", "model": "other"}, False),
        ({"moon_phase": "full"}, True),  # unknown: rather too strict than unlimited
    ],
)
def test_a_budget_with_a_condition_concerns_what_it_matches(match: dict[str, str], concerns: bool) -> None:
    desk = Desk(organisation(key=[rule("key", 0, match=match)]))
    principal = ask().principal
    tagged = msgspec.structs.replace(principal, tags={"cost_center": "4711"})
    answer = desk.do(ask(principal=tagged))
    assert isinstance(answer, Denied if concerns else Granted)


def test_a_fallback_takes_over_the_money_of_the_attempt_it_replaces() -> None:
    desk = Desk(organisation(key=[rule("key", 0.5)]))
    desk.grant(ask("r1", max_tokens=128_000))
    desk.queue(ask("r2", max_tokens=128_000))
    granted = desk.grant(ask("r3", max_tokens=128_000, replaces_rid="r1", attempt=2))
    assert granted.held_nano_usd == USD // 2
    assert desk.booked("key:key:month") == (0, USD // 2)
    desk.do(Withdraw(rid="r2", edge="e1", epoch=1))
    desk.close(usage("r1", kind="void", nano_usd=0))
    desk.close(usage("r3", nano_usd=MILLI))
    assert desk.booked("key:key:month") == (MILLI, 0)


def test_the_dearest_basis_of_the_path_is_held() -> None:
    markup = PriceOverride(uid="p", org="org", models=("claude-*",), percent_ppm=1_000_000, acts_on="charge")
    entities = [*organisation(team=[rule("team", 1, basis="charge")], key=[rule("key", 1)]), markup]
    desk = Desk(entities)
    desk.rules = Rules(desk.rules.catalogue, Tariff(BOOK, (markup,)))
    assert desk.grant(ask()).held_nano_usd == 22 * MILLI


def test_each_budget_counts_in_its_own_basis() -> None:
    desk = Desk(organisation(team=[rule("team", 1, basis="list")], key=[rule("key", 1, basis="charge")]))
    desk.grant(ask())
    priced = usage()
    desk.close(msgspec.structs.replace(priced, list_nano_usd=3, cost_nano_usd=2, charge_nano_usd=4))
    assert (desk.booked("team:team:month")[0], desk.booked("key:key:month")[0]) == (3, 4)


def test_a_day_later_the_counters_begin_at_nothing() -> None:
    desk = Desk(organisation(key=[rule("key", 0.012, "day")]))
    desk.grant(ask("r1"))
    desk.close(usage("r1", nano_usd=12 * MILLI))
    assert desk.deny(ask("r2")).reason == "spent"
    desk.now += DAY
    desk.grant(ask("r3"))
