"""Balances, asked of the shards' owners over the bus."""

import asyncio

from shared.bus import Bus
from shared.contracts.budget import BALANCES, Balances, BalancesAsked
from shared.contracts.message import Decoder, encode
from shared.directory import Directory

PAGE = 500
_balances = Decoder(Balances)


class BalanceStore:
    """Asks budget. The silence of one shard's owner is Unavailable(subject): half a list would look like the whole."""

    def __init__(self, bus: Bus, directory: Directory) -> None:
        self._bus, self._directory = bus, directory

    async def all(self, org: str = "", budget_ids: tuple[str, ...] = ()) -> Balances:
        """Every page in one; of one organisation from its shard, else from all. config_rev: the oldest of theirs."""
        shards = (self._directory.shard(org),) if org else self._directory.shards()
        found = await asyncio.gather(*(self.of_shard(shard, org, budget_ids) for shard in shards))
        return Balances(
            items=tuple(item for part in found for item in part.items),
            total=sum(part.total for part in found),
            config_rev=min(part.config_rev for part in found),
            owner_epoch=max(part.owner_epoch for part in found),
        )

    async def of_shard(self, shard: str, org: str = "", budget_ids: tuple[str, ...] = ()) -> Balances:
        """Every page of one owner's in one."""
        found: Balances | None = None
        while True:
            offset = len(found.items) if found else 0
            ask = BalancesAsked(org=org, budget_ids=budget_ids, offset=offset, limit=PAGE)
            page = _balances.decode(await self._bus.request(BALANCES.format(shard=shard), encode(ask)))
            items = (*(found.items if found else ()), *page.items)
            found = Balances(items=items, total=page.total, config_rev=page.config_rev, owner_epoch=page.owner_epoch)
            if not page.items or len(items) >= page.total:
                return found
