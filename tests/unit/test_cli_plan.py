"""What `sluicegate up` would start, from options and the user's environment."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from services.cli.supervisor import plan
from services.cli.supervisor.data import Layout
from services.cli.supervisor.plan import BusUrls, Options
from services.cli.supervisor.program import Service
from shared.settings import load

LAYOUT = Layout(Path("/data"))
BUS = BusUrls("nats://127.0.0.1:4222", "http://127.0.0.1:8222")
USER = {
    "PATH": "/usr/bin",
    "HOME": "/home/asha",
    "LC_ALL": "C.UTF-8",
    "ANTHROPIC_API_KEY": "sk-real",
    "OTHER_KEY": "sk-other",
    "EDGE_PORT": "tcp://10.0.0.1:80",
    "CONSOLE_TITLE": "somebody else's",
    "AWS_SECRET_ACCESS_KEY": "x",
}


def planned(environ: dict[str, str] | None = None, options: Options | None = None) -> dict[str, Service]:
    given = USER if environ is None else environ
    made = plan.services(given, LAYOUT, options or Options(), BUS, Path("/data/admin-token"), ["0"])
    return {service.name: service for service in [*made, plan.simulator(given, LAYOUT, 0)]}


def everything() -> Iterator[tuple[str, dict[str, str]]]:
    for name, service in planned().items():
        yield name, service.environ()


@pytest.mark.parametrize("name", [*plan.ON_THE_BUS, "simulator"])
def test_every_service_reads_the_settings_it_is_given(name: str) -> None:
    settings = importlib.import_module(f"services.{name}.settings").Settings
    loaded = load(settings, name.upper(), planned()[name].environ())
    assert loaded.ready_file == f"/data/run/{name}.json"
    assert name == "simulator" or loaded.bus.url == BUS.url


@pytest.mark.parametrize("name", [*plan.ON_THE_BUS, "simulator"])
def test_ports_that_are_kept_are_settings_of_the_service(name: str) -> None:
    service = planned()[name]
    service.keep({"http": 7001, "edge": 7002, "clickhouse": 7003})
    settings = importlib.import_module(f"services.{name}.settings").Settings
    kept = msgspec.structs.astuple(load(settings, name.upper(), service.environ()))
    assert 7001 in kept
    assert name != "edge" or 7002 in kept
    assert name != "analytics" or 7003 in kept


def test_nothing_foreign_reaches_a_service() -> None:
    for _, environ in everything():
        assert "EDGE_PORT" not in environ
        assert "CONSOLE_TITLE" not in environ
        assert "AWS_SECRET_ACCESS_KEY" not in environ
        assert environ["LC_ALL"] == "C.UTF-8"


def test_no_service_gets_credentials_but_the_edge_those_that_are_named() -> None:
    for _, environ in everything():
        assert not {"ANTHROPIC_API_KEY", "OTHER_KEY"} & set(environ)
    assert plan.credentials(USER, {"OTHER_KEY", "UNSET"}) == {"ANTHROPIC_API_KEY": "sk-real", "OTHER_KEY": "sk-other"}


@pytest.mark.parametrize("environ", [{}, {"ANTHROPIC_API_KEY": ""}])
def test_without_a_key_the_edge_gets_one_for_the_simulator(environ: dict[str, str]) -> None:
    assert not plan.has_key(environ)
    assert plan.credentials(environ, set()) == {"ANTHROPIC_API_KEY": "simulator"}


def test_a_setting_can_be_passed_to_a_service_on_purpose() -> None:
    found = planned(USER | {"SLUICEGATE_EDGE_LOG_LEVEL": "debug", "SLUICEGATE_ADMIN_TOKEN": "t"})
    assert found["edge"].environ()["EDGE_LOG_LEVEL"] == "debug"
    assert "EDGE_LOG_LEVEL" not in found["console"].environ()
    assert not any("SLUICEGATE_ADMIN_TOKEN" in service.environ() for service in found.values())


def test_our_own_processes_are_never_behind_the_users_proxy() -> None:
    environ = plan.base_environ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "intern.example"})
    assert environ["HTTPS_PROXY"] == "http://proxy:3128"
    assert environ["NO_PROXY"] == "intern.example,127.0.0.1,localhost"
    assert environ["no_proxy"] == "127.0.0.1,localhost"


def test_traces_are_made_where_somebody_takes_them() -> None:
    assert "telemetry" not in planned()
    assert "telemetry" not in planned(USER | {"OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        found = planned(USER | {variable: "http://127.0.0.1:4318"})["telemetry"].environ()
        assert found[variable] == "http://127.0.0.1:4318"
        load(importlib.import_module("services.telemetry.settings").Settings, "TELEMETRY", found)


def many(**options: object) -> dict[str, dict[str, str]]:
    made = plan.services(USER, LAYOUT, Options(**options), BUS, Path("/data/admin-token"), ["0", "1", "2"])  # type: ignore[arg-type]  # fields by name
    return {service.name: service.environ() for service in made}


def test_edges_share_a_port_and_nothing_else() -> None:
    found = many(edges=3)
    edges = [found[name] for name in ("edge", "edge-2", "edge-3")]
    assert {edge["EDGE_LISTEN_PORT"] for edge in edges} == {"8080"}
    assert {edge["EDGE_REUSE_PORT"] for edge in edges} == {"true"}
    assert [edge["EDGE_DATA_DIR"] for edge in edges] == ["/data/edge", "/data/edge-2", "/data/edge-3"]
    assert len({edge["EDGE_READY_FILE"] for edge in edges}) == 3
    assert many()["edge"]["EDGE_REUSE_PORT"] == "false", "a port that another program has must be noticed"


def test_every_shard_is_at_home_with_one_replica_and_may_go_to_any() -> None:
    found = many(budgets=2)
    replicas = [found["budget"], found["budget-2"]]
    assert {replica["BUDGET_SHARDS"] for replica in replicas} == {"0,1,2"}
    assert [replica["BUDGET_HOME_SHARDS"] for replica in replicas] == ["0,2", "1"]
    assert [replica["BUDGET_REPLICA"] for replica in replicas] == ["budget", "budget-2"]
    assert many(budgets=4)["budget-4"]["BUDGET_HOME_SHARDS"] == "none"
    assert "BUDGET_REPLICA" not in many()["budget"], "alone it takes its shards at once"


def test_an_edge_that_has_left_a_spool_is_not_given_up(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.edges() == 1
    for name in ("edge", "edge-3"):
        layout.of(name).mkdir()
        (layout.of(name) / "edge-id").write_text("01EDGE")
    assert layout.edges() == 3


def test_options_name_the_ports() -> None:
    found = planned(options=Options(edge_port=0, console_port=9081))
    assert found["edge"].environ()["EDGE_LISTEN_PORT"] == "0"
    assert found["console"].environ()["CONSOLE_HTTP_PORT"] == "9081"
    assert found["console"].environ()["CONSOLE_CLICKHOUSE_URL"] == "http://127.0.0.1:8123"


def test_a_certificate_reaches_every_edge_by_the_path_given_and_the_console_says_https() -> None:
    """A link is not followed here: what it is changed to is how certificates are renewed."""
    found = many(edges=2, edge_tls_cert=Path("/etc/tls/tls.crt"), edge_tls_key=Path("/etc/tls/tls.key"))
    for edge in (found["edge"], found["edge-2"]):
        assert (edge["EDGE_TLS_CERT_FILE"], edge["EDGE_TLS_KEY_FILE"]) == ("/etc/tls/tls.crt", "/etc/tls/tls.key")
    assert found["console"]["CONSOLE_EDGE_URL"] == "https://127.0.0.1:8080/anthropic"
