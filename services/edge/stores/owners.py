"""Every shard's owner: what is asked goes to the one that has the organisation."""

from collections.abc import Callable

import msgspec

from services.edge.core.lifecycle import Identity
from services.edge.stores.owner import Answer, Owner
from shared.bus import Bus
from shared.contracts.budget import Balances, BalancesAsked, Cut, Extend, Reserve, Verdict
from shared.contracts.edge import EDGE_VERDICT
from shared.contracts.message import Decoder
from shared.directory import Directory
from shared.errors import Unavailable

_verdict = Decoder(Verdict)


class Owners:
    """Shards are known by the organisations that live in them; each has epochs of its own.

    org_of: whose an attempt is, "" once it is over. All that is said of it goes where that organisation lives by then; only
    its usage goes the way it was begun, and its shard passes it on.
    """

    def __init__(
        self,
        bus: Bus,
        me: Identity,
        directory: Directory,
        org_of: Callable[[str], str],
        *,
        queue_seconds: float = 20.0,
        deadline_ms: int = 50,
        first_tries: int = 3,
    ) -> None:
        self._bus, self._me, self._directory, self._org_of = bus, me, directory, org_of
        self._queue_seconds, self._deadline_ms, self._first_tries = queue_seconds, deadline_ms, first_tries
        self._owners: dict[str, Owner] = {}

    async def open(self) -> None:
        """Listen for late verdicts."""
        await self._bus.subscribe(EDGE_VERDICT.format(edge=self._me.edge), self._on_verdict)

    async def close(self) -> None:
        for owner in self._owners.values():
            await owner.close()

    def of(self, shard: str) -> Owner:
        """The owner of one shard, whether anybody has it now or not."""
        owner = self._owners.get(shard)
        if owner is None:
            owner = self._owners[shard] = Owner(
                self._bus,
                self._me,
                shard,
                queue_seconds=self._queue_seconds,
                deadline_ms=self._deadline_ms,
                first_tries=self._first_tries,
            )
        return owner

    async def _on_verdict(self, data: bytes) -> None:
        verdict = _verdict.decode(data)
        for shard, owner in self._owners.items():
            if verdict.shard in ("", shard) and owner.waits_for(verdict):
                owner.late(verdict)

    async def reserve(self, ask: Reserve, *, patient: bool = True) -> Answer:
        """See Owner.reserve."""
        at = self._home(ask.principal.org)
        return await at().reserve(ask, patient=patient, at=at)

    async def extend(self, ask: Extend) -> Answer:
        """See Owner.extend. Raises Unavailable("budget") for an attempt that is over."""
        if not (org := self._org_of(ask.rid)):
            raise Unavailable("budget")
        at = self._home(org)
        return await at().extend(msgspec.structs.replace(ask, org=org), at=at)

    def withdraw(self, rid: str) -> None:
        """See Owner.withdraw. Of an attempt that is over all are told: where nothing is known of it, it changes nothing."""
        if org := self._org_of(rid):
            at = self._home(org)
            at().withdraw(rid, org, at=at)
            return
        for owner in self._owners.values():
            owner.withdraw(rid)

    async def cut(self, cut: Cut) -> bool:
        """See Owner.cut."""
        if not self._org_of(cut.rid):
            return False
        at = self._home(cut.principal.org)
        return await at().cut(cut, at=at)

    async def true_up(self, rid: str, input_tokens: int, nano_usd: int) -> None:
        """See Owner.true_up."""
        if org := self._org_of(rid):
            await self._home(org)().true_up(rid, input_tokens, nano_usd)

    def _home(self, org: str) -> Callable[[], Owner]:
        """The owner of the shard where an organisation lives, looked up for each question: it may move meanwhile."""
        return lambda: self.of(self._directory.shard(org))

    async def balances(self, asked: BalancesAsked) -> Balances:
        """Of one organisation. Raises Unavailable("budget")."""
        return await self.of(self._directory.shard(asked.org)).balances(asked)
