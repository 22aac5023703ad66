"""Which scopes are blocked, and what is told about balances."""

from services.budget.core import blocks
from services.budget.core.state import Mark
from shared.contracts.config import BudgetRule
from shared.contracts.ledger import LimitsApplied
from tests.fixtures.budget import DAY, NOW, USD, Desk, ask, organisation, rule, usage


def spent_desk(*budgets: BudgetRule) -> Desk:
    desk = Desk(organisation(key=budgets))
    desk.close(usage(nano_usd=USD))
    return desk


def due(desk: Desk, scope: str = "key:key") -> list[tuple[str, str, int]]:
    found = []
    for decided in blocks.due(desk.state, desk.rules, [scope], desk.now):
        desk.state.apply(decided)
        found.append((decided.state, decided.budget_id, decided.version))
    return found


def test_a_spent_hard_budget_blocks_its_scope_once() -> None:
    desk = spent_desk(rule("key", 1, "day"))
    assert due(desk) == [("block", "key:key:day", 1)]
    assert due(desk) == []
    (decided,) = desk.state.decisions.values()
    decision = blocks.decision(desk.state, desk.rules, decided, desk.now)
    assert decision.denied
    assert (decision.scope, decision.state, decision.version) == ("key:key", "block", 1)
    assert decision.until == decision.denied.resets_at == NOW + 14 * 3_600_000_000
    assert (decision.denied.spent_nano_usd, decision.denied.contact) == (USD, "platform@acme.example")


def test_a_block_is_lifted_when_the_period_rolls() -> None:
    desk = spent_desk(rule("key", 1, "day"))
    due(desk)
    desk.now += DAY
    assert due(desk) == [("unblock", "key:key:day", 2)]
    assert blocks.blocked(desk.state) == []


def test_a_block_is_lifted_when_the_limit_is_raised_or_its_budget_deleted() -> None:
    for after in ([rule("key", 2, "day")], []):
        desk = spent_desk(rule("key", 1, "day"))
        due(desk)
        desk.govern(organisation(key=after))
        assert due(desk)[0][0] == "unblock"


def test_the_budget_that_lasts_longest_names_the_block() -> None:
    desk = spent_desk(rule("key", 1, "day"), rule("key", 1, "month"))
    assert due(desk) == [("block", "key:key:month", 1)]
    desk.govern(organisation(key=[rule("key", 1, "day"), rule("key", 9, "month")]))
    assert due(desk) == [("block", "key:key:day", 2)]


def test_soft_budgets_and_budgets_with_a_condition_block_nobody() -> None:
    desk = spent_desk(rule("key", 1, mode="soft"), rule("key", 1, "day", match={"model": "claude-*"}))
    assert due(desk) == []


def test_a_limit_of_nothing_blocks_from_the_start() -> None:
    desk = Desk(organisation(key=[rule("key", 0)]))
    assert due(desk) == [("block", "key:key:month", 1)]


def test_a_threshold_is_announced_once_and_again_in_the_next_period() -> None:
    desk = Desk(organisation(key=[rule("key", 1, "day")]))
    limit = desk.rules.catalogue.limits["key:key:day"]
    alerts = blocks.Alerts()
    seen = []
    for n, cost in enumerate((0.4, 0.15, 0.1, 0.4)):
        desk.close(usage(f"r{n}", nano_usd=round(cost * USD)))
        changed = alerts.crossed(desk.state, limit, desk.now)
        seen.append(changed.threshold_ppm if changed else 0)
    assert seen == [0, 500_000, 0, 950_000]
    desk.now += DAY
    desk.close(usage("r9", nano_usd=USD, sent_at=desk.now))
    changed = alerts.crossed(desk.state, limit, desk.now)
    assert changed
    assert changed.threshold_ppm == 950_000
    assert changed.balance.spent_nano_usd == USD


def test_a_balance_tells_spent_and_held_and_who_is_blocked() -> None:
    desk = Desk(organisation(key=[rule("key", 1)]))
    desk.grant(ask("r1"))
    desk.close(usage("r2", nano_usd=USD))
    due(desk)
    balance = blocks.balance(desk.state, desk.rules.catalogue.limits["key:key:month"], desk.now)
    assert (balance.spent_nano_usd, balance.held_nano_usd, balance.blocked) == (USD, USD * 11 // 1_000, True)
    assert (balance.scope, balance.scope_uid, balance.period) == ("key", "key", "month")


def test_new_limits_give_a_cut_conversation_another_chance() -> None:
    desk = Desk(organisation(key=[rule("key", 1)]))
    desk.state.marks["key", "s", ""] = Mark("key:key:month", NOW + DAY)
    desk.state.apply(LimitsApplied(config_rev=2, at=NOW))
    assert desk.state.marks == {}
    assert desk.state.config_rev == 2
