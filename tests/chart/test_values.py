"""values.yaml, its schema, its README and the settings of our services say the same, and every value does something."""

import copy
import functools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from helm import document, settings
from shared.settings import load
from tests.chart.render import (
    CHART,
    NAMES,
    Object,
    attempt,
    containers,
    key,
    objects,
    of_ci,
    one,
    parsed,
    text,
    workload,
)

VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())

ELSEWHERE: dict[str, Object] = {
    "dev.bundled": {"dev": {"bundled": {"enabled": True}}, "nats": None, "clickhouse": None},
    "organisation.document": {"organisation": {"existingConfigMap": ""}},
    "services.edge.replicas": {"services": {"edge": {"keda": {"enabled": False}}}},
    "services.edge.autoscaling": {"services": {"edge": {"keda": {"enabled": False}, "autoscaling": {"enabled": True}}}},
    "services.console.service": {"services": {"console": {"service": {"type": "LoadBalancer"}}}},
    "services.simulator.service": {"services": {"simulator": {"service": {"type": "LoadBalancer"}}}},
    "metrics.podMonitor": {"metrics": {"serviceMonitor": {"enabled": False}, "podMonitor": {"enabled": True}}},
}
"""By the beginning of a path: what must be set for it to matter, over ci/everything-values.yaml. None: as in values.yaml."""

TO: Object = {
    "image.digest": "sha256:" + "1" * 64,
    "image.pullSecrets": [{"name": "registry"}],
    "image.pullPolicy": "Never",
    "nats.url": "nats://elsewhere.nats.svc:5222",
    "nats.monitorUrl": "http://elsewhere.nats.svc:9222",
    "clickhouse.url": "https://elsewhere.clickhouse.svc:9443",
    "clickhouse.engine": "SharedMergeTree",
    "shards": 3,
    "dev.bundled.nats.size": "6Gi",
    "dev.bundled.clickhouse.size": "11Gi",
    "providerCredentials": [{"name": "bedrock", "existingSecret": "bedrock"}],
    "defaults.settings": {"log_level": "warning"},
    "defaults.disruptionBudget.maxUnavailable": "20%",
    "services.pricing.replicas": 0,
    "services.audit.replicas": 0,
    "services.analytics.replicas": 0,
    "services.edge.persistence.size": "3Gi",
    "services.edge.persistence.whenDeleted": "Delete",
    "services.edge.persistence.accessModes": ["ReadWriteOncePod"],
    "services.edge.ingress.hosts": ["other.acme.example"],
    "services.console.ingress.hosts": ["other.acme.example"],
    "services.edge.httpRoute.parentRefs": [{"name": "other"}],
    "services.console.httpRoute.parentRefs": [{"name": "other"}],
    "services.edge.httpRoute.hosts": ["other.acme.example"],
    "services.console.httpRoute.hosts": ["other.acme.example"],
    "services.edge.autoscaling.metrics": [{"type": "External"}],
    "services.edge.keda.triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}],
}
"""What to change a value to, where its type does not say it."""

SERVICE = {
    "type": "NodePort",
    "externalTrafficPolicy": "Cluster",
    "loadBalancerSourceRanges": ["192.0.2.0/24"],
}
"""As TO, for the Service of any service."""

WITHOUT_EFFECT = {
    "defaults.replicas": "of the simulator alone, as the others have their own; its test is that of the overrides",
    "dev.bundled.enabled": "alone it is refused beside nats.url: ci/trial-values.yaml has it",
}
"""With the reason."""


def leaves(node: object, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path, node


def put(path: str, value: object, into: Object) -> Object:
    *above, last = parts(path)
    for part in above:
        into = into.setdefault(part, {})
    into[last] = value
    return into


def parts(path: str) -> list[str]:
    """Keys of annotations have dots of their own, so they are found in values.yaml."""
    found: list[str] = []
    node: Any = VALUES
    while path:
        for name in sorted(node, key=len, reverse=True):
            if path == name or path.startswith(f"{name}."):
                found.append(name)
                node, path = node[name], path[len(name) + 1 :]
                break
        else:
            raise AssertionError(path)
    return found


def at(path: str, values: Object) -> Any:
    for part in parts(path):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def changed(path: str, now: Any) -> Any:
    """Another value of the same type; maps and lists get one more."""
    for end, value in SERVICE.items():
        if path.endswith(f".service.{end}"):
            return value
    if path in TO:
        return TO[path]
    if isinstance(now, bool):
        return not now
    if isinstance(now, int):
        return now + 1
    if isinstance(now, dict):
        return {**now, "changed": "yes"}
    return f"{now}x" if isinstance(now, str) else []


@functools.cache
def base(path: str) -> Object:
    """Values under which `path` matters: ci/everything-values.yaml over values.yaml, and ELSEWHERE over both."""
    made = over(copy.deepcopy(VALUES), yaml.safe_load((CHART / "ci" / "everything-values.yaml").read_text()))
    for begin, more in ELSEWHERE.items():
        if path.startswith(begin):
            for name, value in more.items():
                made[name] = VALUES[name] if value is None else made[name]
            made = over(made, {name: value for name, value in more.items() if value is not None})
    return made


def over(values: Object, more: Object) -> Object:
    for name, value in more.items():
        values[name] = (
            over(values[name], value) if isinstance(value, dict) and isinstance(values.get(name), dict) else value
        )
    return values


PATHS = [path for path, _ in leaves(VALUES) if path not in WITHOUT_EFFECT]
PROOF = 40_000


def told_apart(path: str, number: int) -> str:
    """What can only have come from this value, or "" where it cannot be anything."""
    now = at(path, VALUES)
    if path in TO or isinstance(now, bool) or not isinstance(now, str | int) or path.rsplit(".", 1)[1:] == ["type"]:
        return ""
    return f"{now}-s{number}" if isinstance(now, str) else str(PROOF + number)


def shown(paths: list[str]) -> set[str]:
    """Of these, which all matter under one base, those that are seen in one rendering when each is unlike anything else."""
    proofs = {path: proof for number, path in enumerate(paths) if (proof := told_apart(path, number))}
    values = copy.deepcopy(base(paths[0]))
    for path, proof in proofs.items():
        put(path, int(proof) if isinstance(at(path, VALUES), int) else proof, values)
    done = attempt("", values, arguments=("--skip-schema-validation",))
    assert done.returncode == 0, done.stderr
    words = set(re.split(r"[^\w-]+", done.stdout))
    return {path for path, proof in proofs.items() if re.split(r"[^\w-]+", proof)[-1] in words}


def test_every_value_has_an_effect() -> None:
    groups: dict[str, list[str]] = {}
    for path in PATHS:
        groups.setdefault(json.dumps(base(path)), []).append(path)
    proven = set().union(*(shown(paths) for paths in groups.values()))
    before = {values: text(more=json.loads(values)) for values in groups}

    def ineffective(path: str) -> str:
        values = copy.deepcopy(base(path))
        put(path, changed(path, at(path, values)), values)
        after = attempt("", values)
        if after.returncode:
            return f"{path}: {after.stderr.strip()}"
        return f"{path} changes nothing" if after.stdout == before[json.dumps(base(path))] else ""

    with ThreadPoolExecutor(2) as pool:
        found = list(filter(None, pool.map(ineffective, (path for path in PATHS if path not in proven))))
    assert not found, "\n".join(found)
    assert len(proven) > len(PATHS) / 3, "the quick way proves little: the slow one takes long"


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
    for name, value in OVERRIDES.items():
        with_one = text("production", {"services": {"budget": {name: value}}})
        drains = name == "preStopSeconds"  # the budget has no clients to notice
        assert (with_one == text("production")) is drains, name


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
        if service == "simulator":
            more["services"][service]["enabled"] = True
        read = load(settings.struct_of(service), service.upper(), variables(pod_of(service, more), service))
        for name, value in given.items():
            owner, field = (read.bus, name.removeprefix("bus_")) if name.startswith("bus_") else (read, name)  # type: ignore[attr-defined]  # of most services
            assert getattr(owner, field) == value, f"{service} {name}"


def pod_of(service: str, more: Object) -> Object:
    pod: Object = workload("openshift", service, more)["spec"]["template"]
    return pod
