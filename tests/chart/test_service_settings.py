"""The settings of our services and the values of the chart: what one takes the other gives."""

import functools

import pytest

from helm import settings
from shared.settings import load
from tests.chart.render import NAMES, Object, containers, of_ci, workload


@pytest.mark.parametrize("service", settings.SERVICES)
def test_each_setting_of_a_service_is_either_wired_or_free_or_of_no_use(service: str) -> None:
    known = set(settings.fields(settings.struct_of(service)))
    free = set(settings.free(service))
    rendered = {name for values in NAMES for name in environment(values, service)}
    wired = {name for name in known & settings.WIRED if f"{service}_{name}".upper() in rendered}
    nobodys = {"ready_file", "data_dir"} if service == "analytics" else {"ready_file"}  # of the embedded engine
    assert known - free - wired - settings.UNFIT.keys() <= nobodys, "neither free nor rendered anywhere"


@functools.cache
def environment(values: str, service: str) -> dict[str, str]:
    """Variables of one service as its process gets them; what a Secret or the pod says is made up."""
    for each in of_ci(values):
        if each["kind"] in ("Deployment", "StatefulSet") and each["metadata"]["name"].endswith(f"-{service}"):
            return variables(each["spec"]["template"], service)
    return {}


def variables(pod: Object, container: str) -> dict[str, str]:
    (found,) = [each for each in containers(pod) if each["name"] == container]
    return {each["name"]: each.get("value", "made-up") for each in found["env"]}


@pytest.mark.parametrize("values", NAMES)
def test_every_service_starts_with_what_it_is_given(values: str) -> None:
    """Unknown names and wrong types stop a start, and that is what this looks for."""
    for service in settings.SERVICES:
        if given := environment(values, service):
            read = load(settings.struct_of(service), service.upper(), given)
            assert getattr(read, "http_host", "") in ("0.0.0.0", "::")
            assert getattr(read, "http_port", 0) > 0


def test_all_free_settings_reach_their_service_with_their_type() -> None:
    for service in settings.SERVICES:
        given: Object = {}
        for name, schema in settings.free(service).items():
            match schema.get("type"):
                case "integer":
                    given[name] = schema.get("maximum", 33_554_432)
                case "number":
                    given[name] = 0.5
                case "boolean":
                    given[name] = not schema["default"]
                case _:
                    given[name] = schema["default"] if "enum" in schema else "some"
        more: Object = {"services": {service: {"settings": given}}}
        if service in ("simulator", "telemetry"):
            more["services"][service]["enabled"] = True
        if service == "telemetry":
            more["services"][service]["otlp"] = {"endpoint": "http://collector:4318"}
        read = load(settings.struct_of(service), service.upper(), variables(pod_of(service, more), service))
        for name, value in given.items():
            owner, field = (read.bus, name.removeprefix("bus_")) if name.startswith("bus_") else (read, name)  # type: ignore[attr-defined]  # of most services
            assert getattr(owner, field) == value, f"{service} {name}"


def pod_of(service: str, more: Object) -> Object:
    pod: Object = workload("openshift", service, more)["spec"]["template"]
    return pod
