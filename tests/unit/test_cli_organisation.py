"""What `up` reads in an organisation file, and the addresses it may change in it."""

from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from services.cli.errors import Trouble
from services.cli.supervisor import governed, organisation
from services.cli.supervisor.data import Layout, read_secret
from shared.contracts.organisation import Organisation

SIMULATOR = "http://127.0.0.1:4000"
FORMER = "http://127.0.0.1:3999"


def document(base_url: str = "https://api.anthropic.com", credential: str = "env:ANTHROPIC_API_KEY") -> dict[str, Any]:
    provider = {"name": "anthropic", "kind": "anthropic", "base_url": base_url, "credential": credential}
    return {"providers": [provider]}


def base_url(found: dict[str, Any]) -> str:
    return str(found["providers"][0]["base_url"])


def test_the_default_organisation_is_a_valid_document_with_hard_budgets_on_team_and_key() -> None:
    text = resources.files("services.cli").joinpath("default-organisation.yaml").read_text()
    found = msgspec.convert(yaml.safe_load(text), Organisation)
    team = found.customers[0].teams[0]
    assert [(b.limit_usd, b.period, b.mode) for b in (*team.budgets, *team.keys[0].budgets)] == [
        (50, "month", "hard"),
        (20, "day", "hard"),
    ]


def test_without_a_key_traffic_for_anthropic_goes_to_the_simulator() -> None:
    given = document()
    assert base_url(organisation.routed(given, SIMULATOR)) == SIMULATOR
    assert base_url(given) == "https://api.anthropic.com", "the given document must stay as it is"


def test_with_a_key_it_goes_to_anthropic_again() -> None:
    assert base_url(organisation.routed(document(FORMER), "", frozenset({FORMER}))) == "https://api.anthropic.com"


def test_a_simulator_that_moved_is_followed() -> None:
    assert base_url(organisation.routed(document(FORMER), SIMULATOR, frozenset({FORMER}))) == SIMULATOR


def test_any_other_address_or_credential_is_left_alone() -> None:
    for given in (
        document("http://127.0.0.1:9000"),
        document(credential="env:OTHER"),
        document(credential="file:/key"),
    ):
        assert organisation.routed(given, SIMULATOR, frozenset({FORMER})) == given
        assert organisation.routed(given, "", frozenset({FORMER})) == given


def test_references_are_found_in_both_forms() -> None:
    given = document()
    given["providers"].append(
        {
            "name": "two",
            "credentials": [{"id": "a", "ref": "env:A"}, {"id": "b", "ref": "file:/b"}],
            "base_url": "http://x",
        }
    )
    assert organisation.credential_names(given) == {"ANTHROPIC_API_KEY", "A"}


def test_a_misspelt_field_is_one_line_that_names_the_file_and_the_field() -> None:
    with pytest.raises(Trouble, match=r"org\.yaml: .*limit_uds.*customers\[0\]\.budgets\[0\]"):
        organisation.parse("customers: [{id: a, budgets: [{limit_usd: 1, period: day, limit_uds: 5}]}]", "org.yaml")
    with pytest.raises(Trouble, match=r"org\.yaml is not YAML: [^\n]*$"):
        organisation.parse("customers: [", "org.yaml")


def test_dates_stay_the_text_that_was_written() -> None:
    text = 'prices: [{models: ["*"], percent: -12, from: 2026-11-01}]'
    assert organisation.parse(text, "org.yaml")["prices"][0]["from"] == "2026-11-01"


def test_the_first_key_is_named_by_its_path() -> None:
    teams = [{"id": "empty"}, {"id": "t", "keys": [{"id": "k", "secret": "vk-fixed-1"}]}]
    assert organisation.first_key({"customers": [{"id": "none"}, {"id": "c", "teams": teams}]}) == (
        "c/t/k",
        "vk-fixed-1",
    )
    assert organisation.first_key({}) is None


def test_a_reference_to_a_variable_that_is_not_set_is_told() -> None:
    assert organisation.unset(document(credential="env:X"), {"ANTHROPIC_API_KEY"}) == [
        "anthropic: env:X is not set, its requests will fail"
    ]
    assert organisation.unset(document(), {"ANTHROPIC_API_KEY"}) == []


def test_the_default_secret_is_kept_before_it_is_applied_and_the_same_after_a_crash(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = governed.default(layout).document
    secret = read_secret(layout.first_key)
    assert organisation.first_key(first) == ("default/default/dev", secret)
    assert secret.startswith("vk-")
    assert len(secret) == 46
    assert layout.first_key.stat().st_mode & 0o777 == 0o600
    assert governed.default(layout).document == first
