"""The rendering of log lines."""

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.logs import render

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters()), anything))
def test_every_event_becomes_one_line_of_json(event: dict[str, object]) -> None:
    line = render(None, "info", event)
    assert b"\n" not in line
    assert isinstance(json.loads(line), dict)


def test_what_has_no_form_in_json_is_shown_as_python_shows_it() -> None:
    shown = repr(ValueError("x"))
    assert json.loads(render(None, "info", {"error": ValueError("x")})) == {"error": shown}
    assert json.loads(render(None, "info", {"path": "\udcff", "error": ValueError("x")}))["error"] == shown
