"""values.yaml, its schema and its README say the same; a service says for itself what differs from the defaults."""

import json
from collections.abc import Iterator

import pytest
import yaml

from helm import document
from tests.chart.render import CHART, Object, attempt, key, objects, of_ci, one, parsed, text, workload

VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())

OVERRIDES: Object = {
    "replicas": 0,
    "resources": {"limits": {"memory": "3Gi"}},
    "settings": {"log_level": "error"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.acme.example:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "own"}}],
    "extraVolumes": [{"name": "own", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "own", "mountPath": "/own"}],
    "extraContainers": [{"name": "own", "image": "own:1"}],
    "extraInitContainers": [{"name": "own", "image": "own:1"}],
    "podAnnotations": {"own": "yes"},
    "podLabels": {"own": "yes"},
    "nodeSelector": {"own": "yes"},
    "tolerations": [{"key": "own", "operator": "Exists"}],
    "affinity": {"podAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 3, "topologyKey": "own", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "own",
    "serviceAccount": {"annotations": {"own": "yes"}},
    "disruptionBudget": {"maxUnavailable": 7},
    "probes": {
        "startup": {"failureThreshold": 7},
        "readiness": {"periodSeconds": 7},
        "liveness": {"timeoutSeconds": 7},
    },
    "preStopSeconds": 17,
    "stopMarginSeconds": 70,
    "networkPolicy": {"extraIngress": [{"ports": [{"port": 7}]}], "extraEgress": [{"ports": [{"port": 7}]}]},
}
"""One of each default, for one service."""


def test_a_service_can_override_every_default_for_itself_alone() -> None:
    assert OVERRIDES.keys() == VALUES["defaults"].keys()
    overridden = {service: text("production", {"services": {service: OVERRIDES}}) for service in ("edge", "pricing")}
    for service, rendered in overridden.items():
        before = {json.dumps(each, sort_keys=True) for each in of_ci("production")}
        touched = {
            each["metadata"]["labels"]["app.kubernetes.io/component"]
            for each in parsed(rendered)
            if json.dumps(each, sort_keys=True) not in before
        }
        assert touched == {service}
    unchanged = text("production")
    for name, value in OVERRIDES.items():
        with_one = text("production", {"services": {"budget": {name: value}}})
        drains = name == "preStopSeconds"  # the budget has no clients to notice
        assert (with_one == unchanged) is drains, name


def test_maps_of_a_service_are_merged_into_the_defaults_and_lists_replace_them() -> None:
    more = {
        "defaults": {"podLabels": {"a": "1", "b": "1"}, "tolerations": [{"key": "a"}]},
        "services": {"budget": {"podLabels": {"b": "2"}, "tolerations": [{"key": "b"}]}},
    }
    pod = workload("trial", "budget", more)["spec"]["template"]
    assert pod["metadata"]["labels"].items() >= {"a": "1", "b": "2"}.items()
    assert pod["spec"]["tolerations"] == [{"key": "b"}]


def test_nothing_and_no_are_values_too() -> None:
    more = {
        "defaults": {"priorityClassName": "platform", "tolerations": [{"key": "a"}]},
        "services": {
            "budget": {
                "replicas": 0,
                "disruptionBudget": {"enabled": False},
                "priorityClassName": "",
                "tolerations": [],
            }
        },
    }
    for of in ("helm3", "helm4"):
        found = objects("trial", more, of=of)
        spec = one(found, "Deployment", "-budget")["spec"]
        assert spec["replicas"] == 0
        assert not spec["template"]["spec"].keys() & {"priorityClassName", "tolerations"}
        assert not [each for each in found if key(each) == ("PodDisruptionBudget", "gate-sluicegate-budget")]
        assert one(found, "Deployment", "-console")["spec"]["template"]["spec"]["priorityClassName"] == "platform"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"nats": {"ulr": "nats://x"}}, "ulr"),
        ({"services": {"edge": {"replica": 3}}}, "replica"),
        ({"services": {"edgy": {}}}, "edgy"),
        ({"services": {"edge": {"settings": {"drain_second": 3}}}}, "drain_second"),
        ({"services": {"edge": {"settings": {"http_port": 3}}}}, "http_port"),
        ({"services": {"pricing": {"replicas": 2}}}, "replicas"),
        ({"services": {"edge": {"settings": {"drain_seconds": "long"}}}}, "drain_seconds"),
        ({"services": {"budget": {"persistence": {}}}}, "persistence"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"providerCredentials": [{"name": "x"}]}, "existingSecret"),
    ],
)
def test_a_misspelt_or_mistyped_value_is_refused_by_name(more: Object, name: str) -> None:
    for of in ("helm3", "helm4"):
        done = attempt("trial", more, of=of)
        assert done.returncode != 0
        assert name in done.stderr


def test_schema_and_readme_are_what_values_yaml_says() -> None:
    stale = [path.name for path, written in document.files().items() if path.read_text() != written]
    assert not stale, "run `make schemas`"


def closed(schema: Object, path: str = "") -> Iterator[str]:
    """Maps of the schema that take any name; those of Kubernetes' own objects are meant to."""
    if schema.get("type") == "object" and "additionalProperties" not in schema:
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from closed(inner, f"{path}.{name}")


def test_the_schema_is_closed_all_the_way_down() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(closed(schema)) == [".global"]
