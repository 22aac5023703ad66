"""What a key has left, in the shape in which Claude Code asks for it (contract, fixture 12)."""

from collections.abc import Iterable
from typing import Any

import msgspec

from shared.clock import rfc3339
from shared.contracts.budget import Balance, BalancesAsked
from shared.contracts.config import Key
from shared.directory import Directory

CENT = 10_000_000  # nano-USD
PERIODS = {"day": "daily", "week": "weekly", "month": "monthly"}
SEVERITIES = ((100, "critical"), (95, "high"), (75, "warning"))


def asked(directory: Directory, key: Key) -> BalancesAsked | None:
    """The balances on this key's path, those of its providers too; None where there is no budget."""
    paths = [directory.principal(key), *(directory.principal(key, config.uid) for config in key.providers)]
    ids = dict.fromkeys(rule.id for path in paths for _, _, rule in directory.rules_on(path) if rule.mode != "shadow")
    return BalancesAsked(org=key.org, budget_ids=tuple(ids)) if ids else None


def usage(balances: Iterable[Balance]) -> bytes:
    """The JSON of `GET /api/oauth/usage`: the fullest budget at the top, all of them as limits."""
    fullest_first = sorted(balances, key=percent, reverse=True)
    answer: dict[str, Any] = {"extra_usage": {"is_enabled": False}, "limits": [_limit(each) for each in fullest_first]}
    if fullest_first:
        top = fullest_first[0]
        answer["extra_usage"] = {
            "is_enabled": True,
            "monthly_limit": top.limit_nano_usd // CENT,
            "used_credits": -(-top.spent_nano_usd // CENT),
            "utilization": percent(top),
            "currency": "USD",
        }
    return msgspec.json.encode(answer)


def percent(balance: Balance) -> int:
    """Spent, of the limit, rounded down."""
    return balance.spent_nano_usd * 100 // balance.limit_nano_usd if balance.limit_nano_usd > 0 else 100


def _limit(balance: Balance) -> dict[str, Any]:
    full = percent(balance)
    return {
        "kind": "spend",
        "group": PERIODS.get(balance.period, balance.period),
        "percent": full,
        "resets_at": rfc3339(balance.resets_at) or None,
        "severity": next((name for least, name in SEVERITIES if full >= least), "normal"),
        "is_active": balance.blocked or full >= 100,
        "scope": balance.scope,
    }
