"""The dashboards as files: made from helm/panels, and complete."""

from pathlib import Path

import pytest

from helm.dashboards import written
from tests.observability.files import DASHBOARD_FILES, dashboard, panels


def test_the_files_are_what_helm_panels_says() -> None:
    assert {path: path.read_text() for path in DASHBOARD_FILES} == written()


@pytest.mark.parametrize("path", DASHBOARD_FILES, ids=lambda path: path.stem)
def test_every_panel_says_what_it_tells_in_which_unit_and_filters_by_the_variables(path: Path) -> None:
    names = [variable["name"] for variable in dashboard(path)["templating"]["list"]]
    assert names == ["datasource", "namespace", "job"]
    for panel in panels(path):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert 'namespace=~"$namespace", job=~"$job"' in target["expr"]
            assert target["legendFormat"] or panel["type"] == "stat", panel["title"]


@pytest.mark.parametrize("path", DASHBOARD_FILES, ids=lambda path: path.stem)
def test_no_two_panels_stand_in_one_place(path: Path) -> None:
    places = [panel["gridPos"] for panel in dashboard(path)["panels"]]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in dashboard(path)["panels"]]
    assert len(ids) == len(set(ids))
