"""Where the broker is and who we are, as the environment says it."""

import msgspec
import pytest

from shared.bus import BusSettings
from shared.bus.settings import Identity
from shared.settings import SettingsError, environ_of, load


class Settings(msgspec.Struct, frozen=True):
    bus: BusSettings = BusSettings()


def test_several_servers_are_named_with_commas() -> None:
    found = BusSettings(url="nats://a:4222, tls://b,c:4223,[::1]:4222")
    assert found.servers == ["nats://a:4222", "tls://b", "nats://c:4223", "nats://[::1]:4222"]
    assert found.secure, "TLS to one is TLS to all"
    assert not BusSettings(url="nats://a,nats://b").secure
    assert BusSettings(url="wss://a/path").servers == ["wss://a/path"]


def test_a_user_in_the_url_is_read_and_never_shown() -> None:
    found = BusSettings(url="nats://gate:p%40s%2Cs@a:4222,nats://b:4222")
    assert found.identity == Identity("gate", "p@s,s")
    assert found.shown == "nats://a:4222,nats://b:4222"
    assert BusSettings(url="nats://sesame@a").identity == Identity(token="sesame")
    assert BusSettings(url="nats://a:b@c", user="gate", password="word").identity == Identity("gate", "word")


def test_files_for_tls_mean_tls() -> None:
    assert BusSettings(tls_ca_file="some").secure
    assert BusSettings(tls_cert_file="some", tls_key_file="some").secure


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"CREDENTIALS_FILE": "a", "NKEY_SEED_FILE": "b"}, "BUS_CREDENTIALS_FILE and BUS_NKEY_SEED_FILE"),
        ({"CREDENTIALS_FILE": "a", "USER": "u", "PASSWORD": "secret"}, "BUS_USER and BUS_CREDENTIALS_FILE"),
        ({"NKEY_SEED_FILE": "a", "URL": "nats://u:secret@a"}, "the user in BUS_URL and BUS_NKEY_SEED_FILE"),
        ({"TLS_CERT_FILE": "a"}, "BUS_TLS_CERT_FILE and BUS_TLS_KEY_FILE"),
        ({"TLS_KEY_FILE": "a"}, "BUS_TLS_CERT_FILE and BUS_TLS_KEY_FILE"),
        ({"USER": "u"}, "BUS_USER and BUS_PASSWORD"),
        ({"PASSWORD": "secret"}, "BUS_USER and BUS_PASSWORD"),
        ({"URL": "nats://u:secret@a,nats://v:secret@b"}, "BUS_URL: its servers have different users"),
        ({"URL": "nats://a,ws://b"}, "BUS_URL: ws://"),
        ({"URL": "ws://a", "TLS_CA_FILE": "a"}, "BUS_URL: ws://"),
        ({"URL": "http://a"}, "BUS_URL: server 1"),
        ({"URL": "nats://a,"}, "BUS_URL: server 2"),
        ({"URL": ""}, "BUS_URL: server 1"),
        ({"URL": "nats://u:secret@a:b"}, "BUS_URL: server 1"),
        ({"URL": "nats://u:se,cret@a"}, "BUS_URL: server 1"),
    ],
)
def test_what_contradicts_itself_stops_the_start_and_names_the_variables(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        load(Settings, "EDGE", {f"EDGE_BUS_{name}": value for name, value in given.items()})
    assert "EDGE_" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_settings_of_the_bus_survive_the_environment() -> None:
    given = Settings(bus=BusSettings(url="tls://a,tls://b", credentials_file="/c", tls_ca_file="/d"))
    assert load(Settings, "EDGE", environ_of(given, "EDGE")) == given
