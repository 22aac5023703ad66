"""What may be asked of the owner on the bus: decode, let it decide, encode."""

import asyncio
from collections.abc import Awaitable

import structlog

from services.budget.core import blocks
from services.budget.core.step import SILENT, Answer, Silent
from services.budget.handlers.mover import Mover
from services.budget.handlers.owner import Owner
from services.budget.handlers.rulebook import Rulebook
from shared.bus import Bus
from shared.contracts.budget import (
    BALANCES,
    CUT,
    EXTEND,
    RESERVE,
    TRUEUP,
    WITHDRAW,
    Balances,
    BalancesAsked,
    Cut,
    Denied,
    Done,
    Extend,
    Granted,
    Queued,
    Reserve,
    TrueUp,
    Verdict,
    Withdraw,
)
from shared.contracts.message import Decoder, encode, unbundled
from shared.contracts.pricing import USAGE_PRICED, UsagePriced
from shared.contracts.streams import LEDGER, PRICED, Position
from shared.errors import Unavailable

log = structlog.get_logger()

MOST_BALANCES = 1_000  # about 300 bytes each; a message may have 1 MiB
_reserve = Decoder(Reserve)
_withdraw = Decoder(Withdraw)
_extend = Decoder(Extend)
_cut = Decoder(Cut)
_true_up = Decoder(TrueUp)
_balances = Decoder(BalancesAsked)
_priced = Decoder(UsagePriced)


class Commands:
    """The subjects of one shard."""

    def __init__(self, owner: Owner, rulebook: Rulebook, mover: Mover, shard: str, config_wait_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._mover = mover
        self._rulebook = rulebook
        self._shard = shard
        self._config_wait = config_wait_seconds

    async def subscribe(self, bus: Bus) -> None:
        """Take requests from now on."""
        for subject, handler in (
            (RESERVE, self.reserve),
            (WITHDRAW, self.withdraw),
            (EXTEND, self.extend),
            (CUT, self.cut),
            (TRUEUP, self.true_up),
            (BALANCES, self.balances),
        ):
            await bus.subscribe(subject.format(shard=self._shard), handler)
        # subscribing does not wait for the broker, but what is asked after it on the same connection is answered after it
        await bus.end(LEDGER)

    async def follow_priced(self, bus: Bus) -> None:
        """Book what was priced, from where the ledger stands; start it as a task, it runs for ever."""
        position = self._owner.state.priced
        async for messages in bus.follow(PRICED, USAGE_PRICED.format(shard=self._shard), position.seq):
            for stored in messages:
                parts = unbundled(stored.data)
                for left, data in zip(reversed(range(len(parts))), parts, strict=True):
                    # a record of LEDGER may end in the midst of a bundle, which then must be read again from its beginning
                    at = Position(log_id=position.log_id, seq=stored.seq if not left else stored.seq - 1)
                    await self._mover.close_priced(_priced.decode(data), at, data)

    def reserve(self, data: bytes) -> Awaitable[bytes]:
        """No coroutine, since nearly all that budget does is this: no task is made for it where nothing has to be waited for."""
        ask = _reserve.decode(data)
        if self._rulebook.has_reached(ask.config_rev) and self._is_ours(ask):
            return self._verdict(ask, len(data))
        return self._reserve_later(ask, len(data))

    async def _reserve_later(self, ask: Reserve, size: int) -> bytes:
        try:
            async with asyncio.timeout(self._config_wait):
                await self._rulebook.reached(ask.config_rev)
        except TimeoutError:
            # silence, not a refusal: the edge asks again with the same rid
            raise Unavailable(f"revision {ask.config_rev} of CONFIG") from None
        if not self._is_ours(ask):
            raise Unavailable(f"the shard of organisation {ask.principal.org}")
        return await self._verdict(ask, size)

    def _is_ours(self, ask: Reserve) -> bool:
        """Whether its organisation lives here; one that nobody knows is told so."""
        return not self._rulebook.current().catalogue.elsewhere(ask.principal.org)

    async def extend(self, data: bytes) -> bytes:
        return await self._verdict(_extend.decode(data), len(data))

    def _verdict(self, ask: Reserve | Extend, size: int) -> "asyncio.Future[bytes]":
        said: asyncio.Future[bytes] = self._loop.create_future()
        n = ask.n if isinstance(ask, Extend) else 0

        def answered(done: "asyncio.Future[Answer]") -> None:
            answer = done.result()
            assert isinstance(answer, Granted | Denied | Queued | Silent), "RESERVE and EXTEND have verdicts"
            if said.done():
                return
            if isinstance(answer, Silent):
                said.set_exception(Unavailable(f"the shard of attempt {ask.rid}"))
            else:
                said.set_result(encode(Verdict(rid=ask.rid, answer=answer, n=n, shard=self._shard)))

        self._owner.ask(ask, size).add_done_callback(answered)
        return said

    async def withdraw(self, data: bytes) -> bytes:
        return await self._done(_withdraw.decode(data), len(data))

    async def cut(self, data: bytes) -> bytes:
        return await self._done(_cut.decode(data), len(data))

    async def _done(self, ask: Withdraw | Cut, size: int) -> bytes:
        if await self._owner.ask(ask, size) is SILENT:
            raise Unavailable(f"the shard of attempt {ask.rid}")
        return encode(Done(rid=ask.rid, owner_epoch=self._owner.state.owner_epoch))

    async def true_up(self, data: bytes) -> None:
        self._owner.tell(_true_up.decode(data), len(data))

    async def balances(self, data: bytes) -> bytes:
        """From memory; a budget that was never touched has spent nothing."""
        ask = _balances.decode(data)
        state, catalogue, now = self._owner.state, self._rulebook.current().catalogue, self._owner.now()
        if catalogue.elsewhere(ask.org):
            raise Unavailable(f"the shard of organisation {ask.org}")
        if ask.budget_ids:
            named = (catalogue.limit(budget_id) for budget_id in ask.budget_ids)
            limits = [limit for limit in named if limit and ask.org in ("", limit.org)]
        else:
            limits = list(catalogue.listed(ask.org))
        page = limits[ask.offset : ask.offset + min(ask.limit, MOST_BALANCES)]
        return encode(
            Balances(
                items=tuple(blocks.balance(state, limit, now) for limit in page),
                total=len(limits),
                config_rev=catalogue.config_rev,
                owner_epoch=state.owner_epoch,
            )
        )
