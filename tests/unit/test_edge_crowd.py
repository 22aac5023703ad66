"""Requests of one key at once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.edge.core.crowd import Crowd

STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=60)


@given(STEPS, st.integers(0, 4))
def test_no_key_has_more_than_the_most_and_every_place_is_given_back(steps: list[tuple[str, bool]], most: int) -> None:
    crowd, inside = Crowd(most), Counter[str]()
    for key, enters in steps:
        if enters:
            assert crowd.enter(key) is (most == 0 or inside[key] < most)
            inside[key] += most == 0 or inside[key] < most
        elif inside[key]:
            crowd.leave(key)
            inside[key] -= 1
    for key in list(inside.elements()):
        crowd.leave(key)
    assert crowd._running == {}
