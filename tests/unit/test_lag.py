"""How long a reader has been behind its log."""

from hypothesis import given
from hypothesis import strategies as st

from shared.lag import LOOKS_KEPT, Lag


def test_a_reader_at_the_end_is_not_behind() -> None:
    lag = Lag()
    assert lag.look(0, 0, 1.0) == 0
    assert lag.look(7, 7, 2.0) == 0
    assert lag.look(7, 9, 3.0) == 0  # it has read on since the end was looked up


def test_a_record_is_as_old_as_the_first_look_that_saw_it() -> None:
    lag = Lag()
    assert lag.look(5, 0, 10.0) == 0
    assert lag.look(9, 4, 15.0) == 5
    assert lag.look(9, 5, 20.0) == 5  # what the first look saw is done, the second saw the rest
    assert lag.look(9, 9, 25.0) == 0


def test_a_reader_that_has_what_the_last_look_saw_is_not_behind_however_much_is_written() -> None:
    lag = Lag()
    assert {lag.look(1000 * turn, 1000 * (turn - 1), 5.0 * turn) for turn in range(2, 50)} == {0}


def test_a_reader_that_stands_still_for_days_is_told_of_in_full() -> None:
    lag, looks = Lag(), 10 * LOOKS_KEPT
    assert [lag.look(at, 0, 5.0 * at) for at in range(1, looks)][-1] == 5.0 * (looks - 2)
    assert lag.look(looks, looks, 5.0 * looks) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60))
def test_it_is_zero_exactly_when_all_that_was_seen_is_read(turns: list[tuple[int, int]]) -> None:
    lag, end, position, first_seen = Lag(), 0, 0, dict[int, float]()
    for at, (written, read) in enumerate(turns):
        first_seen |= dict.fromkeys(range(end + 1, end + written + 1), float(at))
        end += written
        position = min(end, position + read)
        expected = at - first_seen[position + 1] if position < end else 0
        assert lag.look(end, position, float(at)) == expected
