"""Every value does something: changed, it changes what is rendered."""

import copy
import functools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from tests.chart.render import CHART, Object, attempt, text

VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())

ELSEWHERE: dict[str, Object] = {
    "dev.bundled": {"dev": {"bundled": {"enabled": True}}, "nats": None, "clickhouse": None},
    "nats.credentialsKey": {"nats": {"existingSecret": "with-credentials"}},
    "nats.nkeySeedKey": {"nats": {"existingSecret": "with-a-seed"}},
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
    "services.telemetry.replicas": 0,
    "services.telemetry.otlp.protocol": "http/protobuf",
    "services.telemetry.otlp.compression": "deflate",
    "services.telemetry.otlp.sampler": "always_off",
    "services.telemetry.otlp.samplerRatio": 0.5,
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
