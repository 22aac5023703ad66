"""Settings come from the environment by prefix."""

import msgspec
import pytest

from shared.settings import SettingsError, environ_of, load


class Inner(msgspec.Struct, frozen=True):
    url: str = "here"


class Outer(msgspec.Struct, frozen=True):
    http_port: int = 0
    wait_seconds: float = 1.5
    inner: Inner = Inner()


def test_variables_of_the_prefix_are_read_and_others_ignored() -> None:
    assert load(Outer, "EDGE", {"EDGE_HTTP_PORT": "8080", "EDGE_INNER_URL": "there", "HOME": "/"}) == Outer(
        http_port=8080, inner=Inner(url="there")
    )


def test_an_unknown_variable_stops_the_start_and_is_named() -> None:
    with pytest.raises(SettingsError, match="EDGE_HTTP_PROT"):
        load(Outer, "EDGE", {"EDGE_HTTP_PROT": "1"})


def test_a_wrong_type_stops_the_start_and_names_the_field() -> None:
    with pytest.raises(SettingsError, match="http_port"):
        load(Outer, "EDGE", {"EDGE_HTTP_PORT": "many"})


def test_settings_survive_the_environment() -> None:
    given = Outer(http_port=7, wait_seconds=2.25, inner=Inner(url="x"))
    assert load(Outer, "EDGE", environ_of(given, "EDGE")) == given
