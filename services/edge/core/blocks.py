"""Who may not spend, as the owner has decided: a spent budget is refused without a question."""

from shared.contracts.attribution import Principal
from shared.contracts.budget import Decision, Denied


class Blocks:
    """The last decision of every scope. A decision counts only if it is newer than the one known.

    Those of an organisation that has moved are newer than all of the shard that it has left.
    """

    def __init__(self) -> None:
        self._last: dict[str, Decision] = {}
        self.version = 0

    def apply(self, decision: Decision) -> bool:
        """False when a newer one is known. Versions rise strictly, also from one owner to the next."""
        known = self._last.get(decision.scope)
        if known and _age(decision) <= _age(known):
            return False
        self._last[decision.scope] = decision
        self.version = max(self.version, decision.version)
        return True

    def denied(self, principal: Principal, now: int) -> Denied | None:
        """The refusal of the widest blocked scope on the path. A block lapses by itself at its `until`."""
        if not self._last:
            return None
        for scope in _scopes(principal):
            decision = self._last.get(scope)
            if decision and decision.state == "block" and decision.denied and (decision.until or now + 1) > now:
                return decision.denied
        return None


def _age(decision: Decision) -> tuple[int, int, int]:
    return decision.move, decision.owner_epoch, decision.version


def _scopes(principal: Principal) -> tuple[str, ...]:
    return (
        f"org:{principal.org}",
        f"customer:{principal.customer}",
        f"team:{principal.team}",
        f"key:{principal.key}",
        f"provider_config:{principal.provider_config}",
    )
