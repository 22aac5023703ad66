"""The compose file, held against the settings of the services and the chart's trial."""

import re
from functools import cache
from typing import Any

import click
import pytest
import yaml

from helm import settings
from services.cli.app import program
from services.cli.supervisor.organisation import parse
from shared.settings import load
from tests.chart.render import Object, containers, objects, of_ci, one, pods, python_tool
from tests.image.sbom import ROOT
from tests.image.test_dockerfile import CODE

FILE = ROOT / "compose.yaml"
ELSEWHERE = {
    "EDGE_DRAIN_SECONDS": "600 s of a cluster are long for somebody who types `docker compose down`",
    "EDGE_DATA_DIR": "",
    "BUDGET_REPLICA": "there is one",
    "BUDGET_CLICKHOUSE_URL": "the embedded engine answers analytics' own network alone",
    "ANALYTICS_CLICKHOUSE_URL": "embedded",
    "ANALYTICS_DATA_DIR": "embedded",
    "ANALYTICS_DATABASE": "the default",
    "ANALYTICS_ENGINE": "the default",
    "CONSOLE_CLICKHOUSE_DATABASE": "the default",
    "CONSOLE_SECURE_COOKIES": "the default",
    "HOME": "of the image",
    "SIMULATOR_KEY": "for `helm test`",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "the default",
    "OTEL_TRACES_SAMPLER": "the default",
    "OTEL_TRACES_SAMPLER_ARG": "the default",
}
"""Variables that the chart's trial has and this one has not, or otherwise, and why."""


@cache
def compose() -> Any:
    """As Docker reads it where no variable is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    assert "${" not in text, "every variable has a default"
    return yaml.safe_load(text)


def services() -> dict[str, Object]:
    found: dict[str, Object] = compose()["services"]
    return found


@cache
def trial() -> list[Object]:
    """The chart's, with what is off there unless somebody asks for it."""
    telemetry = {"enabled": True, "otlp": {"endpoint": "http://host.docker.internal:4318", "compression": "none"}}
    return objects("trial", {"services": {"telemetry": telemetry}})


def chart_container(service: str) -> Object:
    (found,) = [
        each
        for where, pod in pods(trial())
        for each in containers(pod)
        if where.endswith(f"-{service}") and each["name"] == service
    ]
    return found


def port_of(service: str, name: str) -> int:
    (found,) = [each["containerPort"] for each in chart_container(service)["ports"] if each["name"] == name]
    return int(found)


@pytest.mark.parametrize("service", settings.SERVICES)
def test_every_service_starts_with_what_it_is_given(service: str) -> None:
    """Unknown names and wrong types stop a start."""
    given = services()[service]
    assert given["command"] == chart_container(service)["args"]
    prefix = f"{service.upper()}_"
    load(settings.struct_of(service), service.upper(), given["environment"])
    others = {name for name in given["environment"] if not name.startswith(prefix)}
    assert all(name == "ANTHROPIC_API_KEY" or (service == "telemetry" and name.startswith("OTEL_")) for name in others)


@pytest.mark.parametrize("service", settings.SERVICES)
def test_the_settings_are_those_of_the_chart_s_trial(service: str) -> None:
    told = {each["name"]: each.get("value") for each in chart_container(service)["env"]}
    here = {
        name: re.sub(r"//(\w+:\d+)", r"//gate-sluicegate-\1", value) for name, value in environment(service).items()
    }
    differing = {name for name, value in told.items() if value is not None and here.get(name) != value}
    missing = told.keys() - here.keys()
    assert differing | missing <= ELSEWHERE.keys() | {"CONSOLE_EDGE_URL", "CONSOLE_CLICKHOUSE_URL"}


def environment(service: str) -> dict[str, str]:
    found: dict[str, str] = services()[service]["environment"]
    return found


def test_two_ports_are_published_and_on_loopback_alone() -> None:
    published = {name: each["ports"] for name, each in services().items() if "ports" in each}
    assert published == {
        "edge": [f"127.0.0.1:8080:{port_of('edge', 'edge')}"],
        "pod": [f"127.0.0.1:8081:{port_of('console', 'http')}"],
    }


def test_console_and_the_embedded_engine_share_a_network_that_outlives_either() -> None:
    assert services()["console"]["network_mode"] == services()["analytics"]["network_mode"] == "service:pod"
    url = environment("console")["CONSOLE_CLICKHOUSE_URL"]
    defaults = settings.struct_of("analytics")()
    assert url == f"http://{defaults.facade_host}:{defaults.facade_port}"  # type: ignore[attr-defined]  # of analytics
    assert "CLICKHOUSE_URL" not in str(environment("analytics"))
    assert {each["image"] for each in services().values()} == {"sluicegate:0.1.0-chdb"}, "the one with the engine"
    assert services()["nats"]["build"]["args"]["ENGINE"] == "chdb"
    assert f"ARG BASE={services()['nats']['build']['args']['BASE']}\n" in CODE


def test_the_broker_is_that_of_the_chart_s_trial() -> None:
    told = one(of_ci("trial"), "ConfigMap", "-nats")["data"]["nats.conf"]
    here = compose()["configs"]["nats"]["content"]
    assert here == told.replace("gate-sluicegate-nats", "sluicegate-nats").replace("/data/", "/var/lib/sluicegate/")
    assert "sync_interval: always" in here


def test_what_is_lost_with_a_container_is_nothing_that_counts() -> None:
    kept = {name: each["volumes"] for name, each in services().items() if "volumes" in each}
    assert kept == {
        "nats": ["nats:/var/lib/sluicegate"],
        "edge": ["spool:/var/lib/sluicegate"],
        "analytics": ["clickhouse:/var/lib/sluicegate"],
    }
    assert set(compose()["volumes"]) == {"nats", "spool", "clickhouse"}
    assert "mkdir -m 1777 /var/lib/sluicegate\n" in CODE, "else a new volume is root's"


def test_containers_may_do_as_little_as_pods() -> None:
    for name, each in services().items():
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert f"USER {each['user']}\n" in CODE, name
        assert each["tmpfs"] == services()["edge"]["tmpfs"], name
        # Docker copies an inline file into the container, which a read-only root forbids
        assert each.get("read_only", False) is not bool(each.get("configs")), name


def test_streams_may_end_before_the_edge_is_killed() -> None:
    edge = services()["edge"]
    assert int(edge["stop_grace_period"].removesuffix("s")) >= float(edge["environment"]["EDGE_DRAIN_SECONDS"]) + 30


def test_the_organisation_is_one_that_the_console_takes() -> None:
    document = parse(compose()["configs"]["organisation"]["content"], "compose.yaml")
    (provider,) = document["providers"]
    assert provider["base_url"] == f"http://simulator:{port_of('simulator', 'http')}"
    assert provider["credential"].removeprefix("env:") in environment("edge")


@pytest.mark.parametrize("name", ["provision", "organisation"])
def test_what_runs_to_an_end_is_a_command_of_ours(name: str) -> None:
    given = services()[name]["command"]
    command = program.get_command(click.Context(program), given[1])
    assert given[0] == "sluicegate"
    assert command is not None
    options = {option for each in command.params for option in each.opts}
    assert {each for each in given[2:] if each.startswith("-")} <= options
    assert "restart" not in services()[name]


def test_it_is_tidy() -> None:
    config = ROOT / "tests" / "chart" / "yamllint-written.yaml"
    done = python_tool("yamllint", "--strict", "-c", str(config), str(FILE))
    assert done.returncode == 0, done.stdout + done.stderr
