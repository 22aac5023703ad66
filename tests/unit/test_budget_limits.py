"""What budget makes of the organisation's limits."""

from collections.abc import Sequence

import msgspec

from shared.contracts.config import BudgetRule, Entity
from tests.fixtures.budget import organisation, rule, rules


def not_enforced(entities: Sequence[Entity]) -> set[str]:
    return rules(entities).catalogue.not_enforced


def test_unknown_conditions_are_told_to_be_without_effect_and_rollover_is_not() -> None:
    rolling: BudgetRule = msgspec.structs.replace(
        rule("key", 5, "day"), rollover_cap_nano_usd=1, match={"colour": "red"}
    )
    assert not_enforced(organisation(key=[rolling])) == {"match.colour"}


def test_an_organisation_without_such_limits_is_enforced_in_full() -> None:
    assert not_enforced(organisation(key=[rule("key", 5, "day")])) == set()
