"""Balances, asked of the shard's owner over the bus."""

from shared.bus import Bus
from shared.contracts.budget import BALANCES, Balances, BalancesAsked
from shared.contracts.message import Decoder, encode

PAGE = 500
_balances = Decoder(Balances)


class BalanceStore:
    """Asks budget. Its silence is Unavailable(subject)."""

    def __init__(self, bus: Bus, shard: str) -> None:
        self._bus, self._subject = bus, BALANCES.format(shard=shard)

    async def all(self, org: str = "", budget_ids: tuple[str, ...] = ()) -> Balances:
        """Every page in one."""
        found: Balances | None = None
        while True:
            offset = len(found.items) if found else 0
            ask = BalancesAsked(org=org, budget_ids=budget_ids, offset=offset, limit=PAGE)
            page = _balances.decode(await self._bus.request(self._subject, encode(ask)))
            items = (*(found.items if found else ()), *page.items)
            found = Balances(items=items, total=page.total, config_rev=page.config_rev, owner_epoch=page.owner_epoch)
            if not page.items or len(items) >= page.total:
                return found
