"""Snapshots as bytes, and the set of closed attempts that can be frozen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.budget.core.closings import SETTLED, Closing, Closings
from services.budget.core.snapshot import RIDS_IN_PART, capture, restore, rid_parts, unsound
from services.budget.core.state import State
from shared.contracts.streams import Position
from tests.fixtures.budget import Desk, ask, organisation, rule, usage

AT = Position(log_id="l", seq=7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from((SETTLED, Closing("void"), Closing("settled", 1)))),
        st.sampled_from(("freeze", "thaw")),
    )
)


def through(state: State) -> State:
    captured = capture(state, AT, b"", state.priced)
    parts = list(rid_parts(captured.settled))
    state.closings.thaw()
    return restore(captured.head, iter(parts))


def desk() -> Desk:
    made = Desk(organisation(key=[rule("key", 5, "total")]))
    for rid in ("held", "settled", "void", "recovered"):
        made.grant(ask(rid))
        if rid != "held":
            made.close(usage(rid, rid))
    return made


@given(STEPS)
def test_frozen_or_not_it_answers_like_a_dictionary(steps: list[object]) -> None:
    closings, model = Closings(), dict[str, Closing]()
    frozen: tuple[set[str], set[str]] | None = None
    for step in steps:
        if isinstance(step, tuple):
            closings[step[0]] = model[step[0]] = step[1]
        elif step == "thaw":
            closings.thaw()
            frozen = None
        elif frozen is None:
            held = closings.freeze()
            frozen = (held, set(held))
        assert dict(closings) == model
        assert len(closings) == len(model)
        assert all(closings.get(rid) == model.get(rid) for rid in "abcdefg")
        assert frozen is None or frozen[0] == frozen[1], "what is frozen was touched"


def test_a_state_comes_back_as_it_was() -> None:
    state = desk().state
    again = through(state)
    assert again == state
    assert again.closings["recovered"].charges
    assert not unsound(again)


def test_a_large_state_goes_in_parts_none_of_which_takes_long() -> None:
    state = State(closings=Closings({f"{n:026d}" for n in range(3 * RIDS_IN_PART)}))
    parts = list(rid_parts(state.closings.freeze()))
    assert len(parts) == 3
    assert max(map(len, parts)) < 512 * 1024
    state.closings.thaw()
    assert through(state) == state


@pytest.mark.parametrize("field", ["held_nano_usd", "cost_nano_usd"])
def test_a_state_that_no_ledger_leads_to_is_known(field: str) -> None:
    state = desk().state
    counter = next(iter(state.counters.values()))
    setattr(counter, field, -1)
    assert unsound(state)


def test_an_attempt_cannot_be_held_and_closed() -> None:
    state = desk().state
    state.closings["held"] = SETTLED
    assert "both" in unsound(state)
