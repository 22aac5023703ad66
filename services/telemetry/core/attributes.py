"""Values as a span may hold them: known, bounded, and such that every receiver can read them."""

from collections.abc import Mapping

from shared import telemetry
from shared.contracts.attribution import Principal

Value = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, Value]

LONGEST_TEXT = 256
LEAST, MOST = -(1 << 63), (1 << 63) - 1  # of OTLP's integers


def kept(given: Mapping[str, Value]) -> Attributes:
    """Without what says nothing (empty text, false), text and numbers within bounds."""
    found: Attributes = {}
    for name, value in given.items():
        if isinstance(value, bool):
            if value:
                found[name] = True
        elif isinstance(value, int):
            found[name] = min(max(value, LEAST), MOST)
        elif isinstance(value, str):
            if value:
                found[name] = value[:LONGEST_TEXT]
        elif isinstance(value, float) or any(value):
            found[name] = value if isinstance(value, float) else tuple(text[:LONGEST_TEXT] for text in value)
    return found


def of_principal(principal: Principal) -> Attributes:
    return {
        telemetry.ORG_UID: principal.org,
        telemetry.CUSTOMER_UID: principal.customer,
        telemetry.TEAM_UID: principal.team,
        telemetry.KEY_UID: principal.key,
        telemetry.PROJECT_UID: principal.project,
    }
