"""The counting of rate limits against a plain list of everything that happened, with replay and snapshots."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.budget.core.rate_limits import tokens_asked
from services.budget.core.rate_windows import ATTEMPT_MICROS, DAY, MINUTE, SLOTS, Window
from services.budget.core.snapshot import capture, restore, rid_parts, unsound
from services.budget.core.state import State
from services.budget.core.step import Expire
from shared.contracts.budget import Denied, Granted, Withdraw
from shared.contracts.config import ModelRateLimits, RateLimits
from shared.contracts.edge import Line
from shared.contracts.ledger import Held
from shared.contracts.pricing import PricedLine, UsagePriced
from shared.contracts.streams import Position
from tests.fixtures import budget as make
from tests.fixtures.budget import MODEL, SECOND, Desk
from tests.fixtures.rate_limits import limited

REQUESTS, TOKENS, LIVE = 4, 9_000, 2
KEY_REQUESTS = "key:key:requests_per_minute:claude-*"
TEAM_TOKENS = "team:team:tokens_per_minute"
TEAM_LIVE = "team:team:concurrent_requests"
STEPS = st.sampled_from((1, 999_999, SECOND, 7 * SECOND, 59 * SECOND, MINUTE - 1, MINUTE, 90 * SECOND))


@given(st.lists(st.tuples(st.integers(0, 40_000_000), st.integers(1, 5)), max_size=80), st.integers(0, 70_000_000))
def test_a_window_is_a_list_of_counts_seen_through_slots(counts: list[tuple[int, int]], later: int) -> None:
    """Never less than what is in it, and never what is more than one slot too old; bounded however much is counted."""
    window, everything, now = Window(), list[tuple[int, int]](), make.NOW
    for after, amount in counts:
        now += after
        window.count(now, amount, MINUTE)
        everything.append((now, amount))
    assert len(window.slots) <= SLOTS + 1
    now += later
    used, slot = window.used(now, MINUTE), MINUTE // SLOTS
    inside = sum(amount for at, amount in everything if at > now - MINUTE)
    assert inside <= used <= sum(amount for at, amount in everything if at > now - MINUTE - slot)
    assert used <= window.total
    for most in range(0, used):
        moment = window.at_most(most, now, MINUTE)
        assert window.used(moment, MINUTE) <= most < window.used(moment - 1, MINUTE)


class Counting(RuleBasedStateMachine):
    """oracle: when each client request first counted, what counted as tokens when, and which attempts are in flight."""

    def __init__(self) -> None:
        super().__init__()
        limits = RateLimits(tokens_per_minute=TOKENS, concurrent_requests=LIVE)
        patterns = RateLimits(models={"claude-*": ModelRateLimits(requests_per_minute=REQUESTS)})
        self.desk = Desk(limited(team=limits, key=patterns))
        self.rids: list[tuple[str, str]] = []
        self.flying: dict[str, str] = {}
        self.requested: list[int] = []
        self.ended: dict[str, int] = {}
        self.tokens: list[list[int]] = []
        self.taken: dict[str, list[int]] = {}

    @rule(key=st.sampled_from(("key", "key", "key2")), size=st.sampled_from((30, 3_000, 9_000)))
    def a_client_asks(self, key: str, size: int) -> None:
        self.attempt(f"q{len(self.rids)}", key, size, "")

    @rule(back=st.integers(1, 6), size=st.sampled_from((30, 3_000)), takes_over=st.booleans())
    def a_further_attempt(self, back: int, size: int, takes_over: bool) -> None:
        if len(self.rids) >= back:
            rid, request_id = self.rids[-back]
            key = next(e.principal.key for e in self.desk.log if isinstance(e, Held) and e.rid == rid)
            self.attempt(request_id, key, size, rid if takes_over else "")

    def attempt(self, request_id: str, key: str, size: int, replaces: str) -> None:
        rid, now = f"r{len(self.rids)}", self.desk.now
        command = make.ask(rid, key, text_bytes=size, max_tokens=100, request_id=request_id, replaces_rid=replaces)
        before = msgspec.msgpack.encode(self.desk.state.rates)
        answer = self.desk.do(command)
        if isinstance(answer, Denied):
            assert msgspec.msgpack.encode(self.desk.state.rates) == before, "a refusal was counted"
            self.was_right_to_refuse(answer, request_id)
            return
        assert isinstance(answer, Granted)
        if key == "key" and not self.is_known(request_id):
            self.requested.append(now)
        if replaces in self.taken:
            self.taken.pop(replaces)[1] = 0
        self.rids.append((rid, request_id))
        self.flying[rid] = request_id
        self.taken[rid] = [now, tokens_asked(command)]
        self.tokens.append(self.taken[rid])
        assert self.in_window(self.requested) <= REQUESTS
        assert sum(amount for at, amount in self.tokens if at > now - MINUTE) <= TOKENS
        assert len(set(self.flying.values())) <= LIVE

    def is_known(self, request_id: str) -> bool:
        """Another attempt of it is in flight, or ended a moment ago."""
        ended = self.ended.get(request_id)
        return request_id in self.flying.values() or (ended is not None and self.desk.now - ended < ATTEMPT_MICROS)

    def was_right_to_refuse(self, denied: Denied, request_id: str) -> None:
        slack = MINUTE // SLOTS
        match denied.rate_limit:
            case "concurrent_requests":
                assert len(set(self.flying.values())) == LIVE
                assert request_id not in self.flying.values()
            case "requests_per_minute":
                assert self.in_window(self.requested, slack) >= REQUESTS
            case "tokens_per_minute":
                inside = sum(amount for at, amount in self.tokens if at > self.desk.now - MINUTE - slack)
                assert inside + denied.rate_asked > TOKENS
        assert denied.resets_at > self.desk.now
        assert denied.retry_after_s == -(-(denied.resets_at - self.desk.now) // SECOND) <= 60

    def in_window(self, times: list[int], slack: int = 0) -> int:
        return sum(at > self.desk.now - MINUTE - slack for at in times)

    @rule(
        index=st.integers(0, 20),
        tokens=st.sampled_from((0, 10, 1_200, 4_000)),
        kind=st.sampled_from(("settled", "void")),
    )
    def an_attempt_closes(self, index: int, tokens: int, kind: str) -> None:
        """Some of them again, or after they had expired."""
        if not self.rids:
            return
        rid = self.rids[index % len(self.rids)][0]
        tokens = 0 if kind == "void" else tokens
        self.desk.close(priced(rid, kind, tokens))
        self.over(rid, tokens)

    @rule(index=st.integers(0, 20))
    def an_attempt_is_withdrawn(self, index: int) -> None:
        if self.rids:
            rid = self.rids[index % len(self.rids)][0]
            self.desk.do(Withdraw(rid=rid, edge="e1", epoch=1))
            self.over(rid, 0)

    @rule(index=st.integers(0, 20))
    def an_attempt_expires(self, index: int) -> None:
        if self.rids:
            rid = self.rids[index % len(self.rids)][0]
            self.desk.do(Expire(rid))
            self.over(rid, None)

    def over(self, rid: str, tokens: int | None) -> None:
        if rid not in self.flying:
            return
        self.ended[self.flying.pop(rid)] = self.desk.now
        taken = self.taken.pop(rid, [0, 0])
        if tokens is None:
            return
        if tokens > taken[1]:
            self.tokens.append([self.desk.now, tokens - taken[1]])
        else:
            taken[1] = tokens  # this very entry of the list, and no other that looks like it

    @rule(by=STEPS)
    def time_passes(self, by: int) -> None:
        self.desk.now += by

    @rule()
    def a_refused_client_comes_back_when_it_was_told_to(self) -> None:
        """On a copy of the state, since it may be let in."""
        copy = Desk([])
        copy.rules, copy.state, copy.now = self.desk.rules, self.replayed(), self.desk.now
        probe = make.ask("probe", text_bytes=30, max_tokens=100)
        answer = copy.do(probe)
        if isinstance(answer, Denied) and len(set(self.flying.values())) < LIVE:
            copy.now = answer.resets_at - 1
            copy.deny(probe)
            copy.now = answer.resets_at
            copy.grant(probe)

    @rule(by=st.sampled_from(("replay", "snapshot")))
    def the_owner_starts_anew(self, by: str) -> None:
        state = self.replayed()
        assert state.rates == self.desk.state.rates
        if by == "snapshot":
            state = self.desk.state
            captured = capture(state, Position(log_id="l", seq=1), b"", state.priced)
            state = restore(captured.head, iter(list(rid_parts(captured.settled))))
            assert state.rates == self.desk.state.rates
        self.desk.state = state

    def teardown(self) -> None:
        assert self.replayed().rates == self.desk.state.rates
        assert not unsound(self.desk.state)

    @invariant()
    def places_are_those_of_the_live_attempts(self) -> None:
        live = self.desk.state.rates.live.get(TEAM_LIVE, {})
        wanted: dict[str, int] = {}
        for request_id in self.flying.values():
            wanted[request_id] = wanted.get(request_id, 0) + 1
        assert live == wanted
        assert self.desk.state.rates.tokens.keys() == self.flying.keys()

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        rates = self.desk.state.rates
        assert all(len(w.slots) <= SLOTS + 1 for windows in rates.windows.values() for w in windows.values())
        assert all(
            w.total == sum(s.amount for s in w.slots.values()) for ws in rates.windows.values() for w in ws.values()
        )
        assert set(rates.asking) == set(self.flying.values()) | set(rates.ended)

    def replayed(self) -> State:
        state = State()
        for event in self.desk.log:
            state.apply(event)
        return state


def priced(rid: str, kind: str, tokens: int) -> UsagePriced:
    line = PricedLine(
        line=Line(meter="input", quantity=tokens, model=MODEL),
        rate_id="",
        list_pico_usd=0,
        cost_pico_usd=0,
        charge_pico_usd=0,
    )
    return msgspec.structs.replace(make.usage(rid, kind, 0), lines=(line,) if tokens else ())


def test_windows_of_those_who_are_gone_are_forgotten() -> None:
    desk = Desk(
        limited(key=RateLimits(requests_per_minute=100, requests_per_day=100), team=RateLimits(requests_per_day=9))
    )
    desk.grant(make.ask("r1"))
    desk.now += 2 * MINUTE
    desk.grant(make.ask("r2", key="key2"))
    assert {name for windows in desk.state.rates.windows.values() for name in windows} == {
        "key:key:requests_per_minute",
        "key:key:requests_per_day",
        "team:team:requests_per_day",
    }
    desk.now += DAY
    desk.grant(make.ask("r3", key="key2"))
    assert set(desk.state.rates.windows[DAY]) == {"team:team:requests_per_day"}


Counting.TestCase.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
TestCounting = Counting.TestCase
