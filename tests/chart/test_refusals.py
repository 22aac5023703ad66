"""What cannot work is refused when it is rendered, with words that help."""

import pytest

from tests.chart.render import Object, attempt

TOKEN: Object = {"adminToken": {"existingSecret": "admin"}}


@pytest.mark.parametrize(
    ("values", "more", "said"),
    [
        ("", {}, "dev.bundled.enabled=true"),
        ("", {"dev": {"bundled": {"enabled": True}}}, "adminToken.existingSecret"),
        ("", TOKEN | {"nats": {"url": "nats://x:4222"}}, "clickhouse.url"),
        ("trial", {"nats": {"url": "nats://x:4222"}}, "leave nats.url and clickhouse.url empty"),
        ("trial", {"nats": {"existingSecret": "x"}}, "know no users"),
        ("trial", {"nats": {"tls": {"existingSecret": "x"}}}, "has no TLS"),
        ("production", {"nats": {"credentialsKey": "a", "nkeySeedKey": "b"}}, "only one of them can say who we are"),
        ("openshift", {"nats": {"nkeySeedKey": "seed"}}, "name it with nats.existingSecret"),
        ("production", {"nats": {"tls": {"existingSecret": "x", "caKey": ""}}}, "nothing of it is used"),
        ("production", {"nats": {"tls": {"certKey": "tls.crt", "keyKey": ""}}}, "nats.tls.keyKey is empty"),
        ("production", {"organisation": {"existingConfigMap": "x"}}, "only one of them"),
        ("production", {"metrics": {"serviceMonitor": {"enabled": True}}}, "counted twice"),
        ("production", {"services": {"edge": {"keda": {"enabled": True, "triggers": [{}]}}}}, "one of them"),
        ("trial", {"services": {"edge": {"keda": {"enabled": True}}}}, "triggers is empty"),
        ("trial", {"services": {"edge": {"ingress": {"enabled": True}}}}, "services.edge.ingress.hosts"),
        ("trial", {"services": {"console": {"httpRoute": {"enabled": True}}}}, "services.console.httpRoute.parentRefs"),
    ],
)
def test_values_that_cannot_work_are_refused_with_what_to_do(values: str, more: Object, said: str) -> None:
    for of in ("helm3", "helm4"):
        done = attempt(values, more, of=of)
        assert done.returncode != 0
        assert said in done.stderr


def test_a_kubernetes_that_is_too_old_is_refused() -> None:
    assert "kubeVersion" in attempt("trial", kube="1.28").stderr
