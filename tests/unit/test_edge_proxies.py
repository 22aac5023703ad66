"""Which proxy leads where."""

import pytest

from services.edge.stores.upstream import Proxies, origin_of
from services.edge.stores.upstream.connection import Via
from shared.settings import SettingsError

BOTH = {"https": "http://asha:p%40ss@proxy.acme.example:3128", "http": "proxy.acme.example"}


def test_each_scheme_has_its_proxy_and_its_credentials_are_never_in_a_name() -> None:
    proxies = Proxies(BOTH)
    https = proxies.of(origin_of("https://api.anthropic.com"))
    http = proxies.of(origin_of("http://provider.example"))
    assert https is not None
    assert http is not None
    assert (https.scheme, https.host, https.port) == ("http", "proxy.acme.example", 3128)
    assert https.authorization == b"Basic YXNoYTpwQHNz"
    assert https.name == "proxy.acme.example:3128"
    assert (http.port, http.authorization) == (80, b"")


@pytest.mark.parametrize(
    ("exceptions", "base_url"),
    [
        ("anthropic.com", "https://api.anthropic.com"),
        (".anthropic.com", "https://api.anthropic.com"),
        ("other.example, api.anthropic.com:8443", "https://api.anthropic.com:8443"),
        ("*", "https://api.anthropic.com"),
        ("*.Anthropic.com", "https://API.anthropic.com"),
        ("10.0.0.0/8", "http://10.20.30.40:8000"),
        ("fd00::/8", "http://[fd00::1]:8000"),
        ("10.20.30.40", "http://10.20.30.40:8000"),
        ("", "http://127.0.0.1:8000"),
        ("", "http://localhost:8000"),
        ("", "https://[::1]"),
    ],
)
def test_exceptions_and_this_machine_go_straight(exceptions: str, base_url: str) -> None:
    assert Proxies(BOTH | {"no": exceptions}).of(origin_of(base_url)) is None


@pytest.mark.parametrize("exceptions", ["other.example", "10.0.0.0/8", "api.anthropic.com:8443", "pi.anthropic.com"])
def test_an_exception_for_others_is_none(exceptions: str) -> None:
    assert Proxies(BOTH | {"no": exceptions}).of(origin_of("https://api.anthropic.com")) is not None


@pytest.mark.parametrize("url", ["socks5://u:secret@proxy:1080", "http://", "http://u:secret@proxy:99999"])
def test_a_proxy_that_is_not_spoken_stops_the_start_without_its_password(url: str) -> None:
    """To go around it would be worse."""
    with pytest.raises(SettingsError, match="HTTPS_PROXY") as raised:
        Proxies({"https": url})
    assert "secret" not in str(raised.value)


def test_a_request_for_an_http_provider_gets_an_absolute_target_and_nothing_else_changes() -> None:
    via = Via(before=b"http://provider.example:8000", authorization=b"Basic x")
    head = b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: provider.example:8000\r\nX: a b\r\n\r\n"
    assert via.wrapped(head) == (
        b"POST http://provider.example:8000/v1/messages?beta=true HTTP/1.1\r\n"
        b"Proxy-Authorization: Basic x\r\nHost: provider.example:8000\r\nX: a b\r\n\r\n"
    )
