"""What budget makes of the organisation's limits."""

from collections.abc import Sequence

import msgspec
import pytest

from shared.contracts.config import BudgetRule, Customer, Entity, Key, Org, RateLimits, Team
from tests.fixtures.budget import organisation, rule, rules


def not_enforced(entities: Sequence[Entity]) -> set[str]:
    return rules(entities).catalogue.not_enforced


@pytest.mark.parametrize("kind", [Org, Customer, Team, Key])
def test_rate_limits_anywhere_are_told_to_be_without_effect(kind: type[Entity]) -> None:
    limits = RateLimits(requests_per_minute=1)
    entities = [
        msgspec.structs.replace(entity, rate_limits=limits) if isinstance(entity, kind) else entity
        for entity in organisation()
    ]
    assert not_enforced(entities) == {"rate_limits"}


def test_what_rolls_over_and_unknown_conditions_are_told_to_be_without_effect() -> None:
    rolling: BudgetRule = msgspec.structs.replace(
        rule("key", 5, "day"), rollover_cap_nano_usd=1, match={"colour": "red"}
    )
    assert not_enforced(organisation(key=[rolling])) == {"rollover_cap_usd", "match.colour"}


def test_an_organisation_without_such_limits_is_enforced_in_full() -> None:
    assert not_enforced(organisation(key=[rule("key", 5, "day")])) == set()
