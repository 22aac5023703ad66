"""Leases through any order of messages and deaths: no money is freed that may still burn, and no cap is passed."""

from collections.abc import Sequence

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.budget.core.estates import Estates
from services.budget.core.inspection import Inspection
from services.budget.core.leases import GiveBack, Lend, Lent, Policy
from services.budget.core.snapshot import capture, restore, rid_parts, unsound
from services.budget.core.state import State
from services.budget.core.step import Close, Expire
from services.edge.core.lease import Purse
from shared.contracts.budget import Granted, Reserve, TrueUp, Withdraw
from shared.contracts.edge import EdgeStatus
from shared.contracts.leases import Drawn, LeaseAnswered, LeaseAsked
from shared.contracts.ledger import Commit
from shared.contracts.message import Decoder, encode
from shared.contracts.pricing import UsagePriced
from shared.contracts.streams import Position
from tests.fixtures import budget as make
from tests.fixtures.budget import SECOND, USD, Desk, ask, organisation, usage

TEAM = "team:team:month"
BOLD = Policy(share_percent=30, lent_percent=60, kept_percent=10)
_commit = Decoder(Commit)


def closing(granted: Granted, rid: str, nano_usd: int, kind: str) -> UsagePriced:
    return usage(rid, kind, nano_usd, charges=granted.charges, held_nano_usd=granted.held_nano_usd, lease=granted.lease)


class Edge:
    """An edge with the real purse. live: attempts that were sent, with what they were granted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.epoch = 1
        self.purse = Purse()
        self.live: dict[str, Granted] = {}
        self.undelivered: dict[str, None] = {}  # rids of the life before whose ends the broker does not have


class Leases(RuleBasedStateMachine):
    """Two edges, an owner, and a network that delivers each message late, twice or never.

    The oracle: attempts cost no more than they were granted, so spent + held may never pass the cap; and what is held is at
    least what those may still cost that were sent and are not booked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cap = 3 * USD
        self.desk = Desk(organisation(team=[make.rule("team", 3)]))
        self.edges = [Edge("e1"), Edge("e2")]
        self.network: list[Drawn | LeaseAsked | GiveBack | Withdraw | TrueUp] = []
        self.usage: list[UsagePriced] = []
        self.applied = 0
        self.estates = Estates()
        self.count = 0
        self.owed: dict[str, int] = {}
        self.heard_of: set[str] = set()
        self.records: list[bytes] = []
        self.kept = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    @initialize()
    def begin(self) -> None:
        """Each edge has a lease."""
        for edge in self.edges:
            for _ in range(6):
                self.attempt(edge, 500, 0)
        while self.network:
            self.a_message_arrives(0, heard=True, again=False)

    def commit(self) -> None:
        new, self.kept = self.desk.log[self.kept :], len(self.desk.log)
        commit = Commit(
            shard="0", owner_epoch=0, at=self.desk.now, digest=b"", priced=self.desk.state.priced, events=tuple(new)
        )
        self.records.append(encode(commit))

    def ask(self, edge: Edge, max_tokens: int, text_bytes: int) -> Reserve:
        return ask(self.name("r"), max_tokens=max_tokens, text_bytes=text_bytes, edge=edge.name, epoch=edge.epoch)

    @rule(edge=st.integers(0, 1), text_bytes=st.sampled_from((0, 9_000)), many=st.integers(1, 4), told=st.booleans())
    def requests(self, edge: int, text_bytes: int, many: int, told: bool) -> None:
        for _ in range(many):
            self.attempt(self.edges[edge], 500, text_bytes)
        if told:
            self.an_edge_tells(edge, returns_first=False)

    @rule(edge=st.integers(0, 1))
    def a_large_request(self, edge: int) -> None:
        self.attempt(self.edges[edge], 30_000, 0)

    def attempt(self, edge: Edge, max_tokens: int, text_bytes: int) -> None:
        """On a lease, else as the owner says."""
        command = self.ask(edge, max_tokens, text_bytes)
        granted = edge.purse.draw(command, self.desk.now)
        if granted is None:
            answer = self.desk.do(msgspec.structs.replace(command, may_wait=False))
            self.commit()
            if not isinstance(answer, Granted):
                return
            granted = answer
        edge.live[command.rid] = granted
        self.owed[command.rid] = granted.held_nano_usd
        if wish := edge.purse.wish(command, self.desk.now, self.name("l")):
            self.network.append(wish)

    @rule(edge=st.integers(0, 1), many=st.integers(1, 4))
    def all_is_well_for_a_while(self, edge: int, many: int) -> None:
        for _ in range(many):
            self.an_edge_tells(edge, returns_first=False)
            if self.network:
                self.a_message_arrives(len(self.network) - 1, heard=True, again=False)

    @rule(edge=st.integers(0, 1), returns_first=st.booleans())
    def an_edge_tells(self, edge: int, returns_first: bool) -> None:
        purse = self.edges[edge].purse
        drawn, lease = purse.to_tell(), purse.to_return()
        if lease and (returns_first or not drawn):
            self.network.append(GiveBack(lease))
        elif drawn:
            self.network.append(drawn)

    @rule(index=st.integers(0, 20), heard=st.sampled_from((True, True, False)), again=st.sampled_from((False, True)))
    def a_message_arrives(self, index: int, heard: bool, again: bool) -> None:
        if not self.network:
            return
        at = index % len(self.network)
        message = self.network[at] if again else self.network.pop(at)
        if isinstance(message, LeaseAsked):
            more = msgspec.structs.replace(message, attempts=10 * message.attempts)
            answer = self.desk.do(Lend(more, BOLD))
            assert isinstance(answer, Lent)
            edge = self.edge_of(message.like.edge, message.like.epoch)
            said = LeaseAnswered(lease=message.lease, owner_epoch=0, terms=answer.terms)
            if edge and message.lease not in self.heard_of:  # an answer that comes late finds nobody
                self.heard_of.add(message.lease)
                edge.purse.answered(message, said if heard else None, self.desk.now)
        else:
            self.desk.do(message)
            for edge in self.edges:
                if heard and isinstance(message, Drawn):
                    edge.purse.told(message)
                elif heard and isinstance(message, GiveBack):
                    edge.purse.returned(message.lease)
        self.commit()

    def edge_of(self, name: str, epoch: int) -> Edge | None:
        return next((edge for edge in self.edges if (edge.name, edge.epoch) == (name, epoch)), None)

    @rule(edge=st.integers(0, 1), index=st.integers(0, 20), share=st.integers(0, 100), void=st.booleans())
    def an_attempt_ends(self, edge: int, index: int, share: int, void: bool) -> None:
        live = self.edges[edge].live
        if live:
            rid = list(live)[index % len(live)]
            granted = live.pop(rid)
            if void:
                self.owed.pop(rid, None)  # it was never sent
                self.network.append(Withdraw(rid=rid, edge=self.edges[edge].name, epoch=1))
            cost = 0 if void else granted.held_nano_usd * share // 100
            self.usage.append(closing(granted, rid, cost, "void" if void else "settled"))

    @rule(edge=st.integers(0, 1), index=st.integers(0, 20), tokens=st.integers(1, 500))
    def the_input_is_counted(self, edge: int, index: int, tokens: int) -> None:
        """May be lost, and comes whenever it comes; what it frees the attempt does not cost any more."""
        live = self.edges[edge].live
        if not live:
            return
        rid = list(live)[index % len(live)]
        hold = self.desk.state.holds.get(rid)
        before = hold.nano_usd if hold else 0
        self.desk.do(TrueUp(rid=rid, input_tokens=tokens, nano_usd=0))
        self.commit()
        if hold:
            freed = before - hold.nano_usd
            self.owed[rid] -= freed
            live[rid] = msgspec.structs.replace(live[rid], held_nano_usd=live[rid].held_nano_usd - freed)

    @rule(many=st.integers(1, 4))
    def the_owner_books(self, many: int) -> None:
        for priced in self.usage[self.applied : self.applied + many]:
            self.applied += 1
            self.desk.do(Close(priced, Position(log_id="p", seq=self.applied)))
            self.owed.pop(priced.usage.rid, None)
            for edge in self.edges:
                edge.undelivered.pop(priced.usage.rid, None)
        self.commit()

    @rule(edge=st.integers(0, 1))
    def an_edge_dies_and_starts_again(self, edge: int) -> None:
        """Its spool tells how all that was sent has ended."""
        died = self.edges[edge]
        for rid, granted in died.live.items():
            self.usage.append(closing(granted, rid, granted.held_nano_usd, "recovered"))
        born = self.edges[edge] = Edge(died.name)
        born.epoch = died.epoch + 1
        self.recorded = len(self.usage)
        self.estates.heard(EdgeStatus(edge=born.name, epoch=born.epoch, at=self.desk.now, delivered_epoch=died.epoch))

    @rule(priced=st.integers(0, 40))
    def estates_are_settled(self, priced: int) -> None:
        """Pricing may be behind USAGE, and the ledger behind pricing."""
        seq = min(len(self.usage), self.applied + priced)
        found = list(self.estates.settled(self.desk.state.leases, len(self.usage), (seq, seq), self.applied))
        for lease in found:
            self.desk.do(GiveBack(lease))
        self.commit()

    @rule(edge=st.integers(0, 1), seconds=st.sampled_from((1, 12, 400)), reachable=st.booleans())
    def time_passes(self, edge: int, seconds: int, reachable: bool) -> None:
        self.desk.now += seconds * SECOND
        self.edges[edge].purse.tidy(self.desk.now, 1, reachable)

    @rule(edge=st.integers(0, 1))
    def everything_is_given_back(self, edge: int) -> None:
        self.edges[edge].purse.tidy(self.desk.now, 2, True)

    @rule(index=st.integers(0, 20))
    def a_hold_is_forgotten(self, index: int) -> None:
        holds = list(self.desk.state.holds)
        if holds:
            rid = holds[index % len(holds)]
            self.desk.do(Expire(rid))
            self.owed.pop(rid, None)
            self.commit()

    @rule()
    def crash_and_replay(self) -> None:
        self.desk.state = replayed(self.records)
        assert unsound(self.desk.state) == ""

    @invariant()
    def no_cap_is_passed(self) -> None:
        spent, held = self.desk.booked(TEAM)
        assert spent + held <= self.cap

    @invariant()
    def what_may_still_burn_is_held(self) -> None:
        assert self.desk.booked(TEAM)[1] >= sum(self.owed.values())

    @invariant()
    def an_edge_never_has_more_than_the_owner_has_set_aside(self) -> None:
        for edge in self.edges:
            for lease in edge.purse._open.values():
                assert lease.left <= self.desk.state.leases[lease.id].nano_usd

    @invariant()
    def the_books_are_sound_and_replay(self) -> None:
        state = self.desk.state
        assert unsound(state) == ""
        assert replayed(self.records) == state
        captured = capture(state, Position(), b"", state.priced)
        assert restore(captured.head, rid_parts(captured.settled)) == state
        state.closings.thaw()

    def teardown(self) -> None:
        inspection = Inspection()
        for seq, record in enumerate(self.records, 1):
            inspection.feed(seq, record, _commit.decode(record))
        wrong = [check for check in inspection.checks() if check.state == "fail" and check is not inspection.chain]
        assert not wrong


def replayed(records: Sequence[bytes]) -> State:
    state = State()
    for record in records:
        state.fold(_commit.decode(record))
    return state


Leases.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestLeases = Leases.TestCase
