"""The line: attempts for which there is no money now but will be. They hold nothing; they stand where room is lacking.

At each budget the keys take turns, first come first served within a key. Streams that ask for more go before them, the
oldest first. Not in the ledger: after a restart the edges ask again and say how long they have waited.
"""

from bisect import insort
from collections.abc import Collection, Iterable, Iterator

import msgspec

from services.budget.core.admission import Applicant
from services.budget.core.pace import Pace
from shared.contracts.budget import Extend
from shared.contracts.message import Micros, NanoUSD


class Waiter(msgspec.Struct, gc=False):
    """One attempt in line. stands_at: budgets that lack room for it, or where somebody is before it. number: of its entry."""

    applicant: Applicant
    number: int = 0
    stands_at: frozenset[str] = frozenset()

    @property
    def rid(self) -> str:
        return self.applicant.ask.rid

    @property
    def place(self) -> tuple[Micros, int, str]:
        """Among those of its key: first come, first served."""
        return (self.applicant.came, self.number, self.rid)

    @property
    def key(self) -> str:
        return self.applicant.ask.principal.key


class Wish(msgspec.Struct, gc=False):
    """A stream that needs more than it holds, told to the edge that carries it."""

    ask: Extend
    edge: str
    stands_at: frozenset[str] = frozenset()


class _Queue:
    """Who stands at one budget."""

    __slots__ = ("turns", "wishes")

    def __init__(self) -> None:
        self.turns: dict[
            str, list[tuple[Micros, int, str]]
        ] = {}  # key -> (came, number, rid); whose turn it is is first
        self.wishes: dict[str, None] = {}  # rids of streams, oldest first

    def __bool__(self) -> bool:
        return bool(self.turns or self.wishes)


class Line:
    """Empty most of the time, and then free of cost. unserved: budgets that are still to be looked at."""

    def __init__(self) -> None:
        self.unserved: dict[str, None] = {}
        self.pace = Pace()
        self.waiters: dict[str, Waiter] = {}
        self.wishes: dict[str, Wish] = {}
        self._at: dict[str, _Queue] = {}
        self._entries = 0

    def __bool__(self) -> bool:
        return bool(self.waiters or self.wishes)

    def budgets(self) -> list[str]:
        """Where somebody stands."""
        return list(self._at)

    def is_waited_at(self, budget_id: str) -> bool:
        return budget_id in self._at

    # Attempts that wait for a grant.

    def stand(self, waiter: Waiter, budget_ids: Iterable[str]) -> frozenset[str]:
        """Let it stand there and nowhere else. Returns the budgets that it left, where the next one may now be served."""
        before, now = waiter.stands_at, frozenset(budget_ids)
        if waiter.rid not in self.waiters:
            self._entries += 1
            waiter.number = self._entries
            self.waiters[waiter.rid] = waiter
        for budget_id in now - before:
            turns = self._at.setdefault(budget_id, _Queue()).turns
            insort(turns.setdefault(waiter.key, []), waiter.place)
        for budget_id in before - now:
            self._step_out(waiter, budget_id)
        waiter.stands_at = now
        return before - now

    def leave(self, rid: str, granted: bool = False) -> frozenset[str]:
        """It waits no more. With a grant its key has had its turn."""
        waiter = self.waiters.pop(rid, None)
        if waiter is None:
            return frozenset()
        for budget_id in waiter.stands_at:
            self._step_out(waiter, budget_id)
            queue = self._at.get(budget_id)
            if granted and queue and (others := queue.turns.pop(waiter.key, None)):
                queue.turns[waiter.key] = others
        return waiter.stands_at

    def first(self, budget_id: str) -> Waiter | None:
        """Whose turn it is there."""
        queue = self._at.get(budget_id)
        if queue is None or not queue.turns:
            return None
        _, _, rid = next(iter(queue.turns.values()))[0]
        return self.waiters[rid]

    def leads(self, rid: str) -> list[str]:
        """Where it is its turn."""
        waiter = self.waiters.get(rid)
        return [each for each in sorted(waiter.stands_at) if self.first(each) is waiter] if waiter else []

    def is_before(self, budget_id: str, rid: str) -> bool:
        """Whether anybody else has to be served there before this one."""
        queue = self._at.get(budget_id)
        if queue is None:
            return False
        return bool(queue.wishes) or next(iter(queue.turns.values()))[0][2] != rid

    def beyond(self, budget_id: str, now: Micros) -> NanoUSD:
        """See `Pace`."""
        return self.pace.beyond(budget_id, now)

    def ahead(self, rid: str) -> int:
        """How many stand at the fullest of its budgets, at most."""
        waiter = self.waiters.get(rid)
        if waiter is None:
            return 0
        lengths = (sum(map(len, self._at[budget_id].turns.values())) for budget_id in waiter.stands_at)
        return max(lengths, default=1) - 1

    def _step_out(self, waiter: Waiter, budget_id: str) -> None:
        queue = self._at[budget_id]
        own = queue.turns[waiter.key]
        own.remove(waiter.place)
        if not own:
            del queue.turns[waiter.key]
        self._forget_empty(budget_id, queue)

    def leave_all(self, rids: Collection[str]) -> None:
        """They are served elsewhere, and so is everybody who stands where they do."""
        for rid in [rid for rid in (*self.waiters, *self.wishes) if rid in rids]:
            self.leave(rid)
            self.unwish(rid)

    # Streams that wait for more.

    def wish(self, wish: Wish, budget_ids: Iterable[str]) -> frozenset[str]:
        """Let it stand there and nowhere else; where it stood already it keeps its place. Returns what it left."""
        rid, now = wish.ask.rid, frozenset(budget_ids)
        old = self.wishes.get(rid)
        before = old.stands_at if old else frozenset()
        for budget_id in before - now:
            self._unwish(rid, budget_id)
        for budget_id in now - before:
            self._at.setdefault(budget_id, _Queue()).wishes[rid] = None
        wish.stands_at = now
        self.wishes[rid] = wish
        return before - now

    def wishes_before(self, budget_id: str, rid: str) -> bool:
        """Whether an older stream has to be served there before this one."""
        queue = self._at.get(budget_id)
        return queue is not None and bool(queue.wishes) and next(iter(queue.wishes)) != rid

    def unwish(self, rid: str) -> frozenset[str]:
        """It needs nothing any more. Returns where it stood."""
        wish = self.wishes.pop(rid, None)
        if wish is None:
            return frozenset()
        for budget_id in wish.stands_at:
            self._unwish(rid, budget_id)
        return wish.stands_at

    def wishes_at(self, budget_id: str) -> Iterator[Wish]:
        """The oldest first. Safe against changes on the way."""
        queue = self._at.get(budget_id)
        return (self.wishes[rid] for rid in (tuple(queue.wishes) if queue else ()) if rid in self.wishes)

    def _unwish(self, rid: str, budget_id: str) -> None:
        queue = self._at[budget_id]
        del queue.wishes[rid]
        self._forget_empty(budget_id, queue)

    def _forget_empty(self, budget_id: str, queue: _Queue) -> None:
        if not queue:
            del self._at[budget_id]
