"""What tests/cluster/policies.py makes of the chart's policies for iptables, judged by a reader of its rules of our own."""

import ipaddress

import pytest

from tests.chart.render import Object, of_ci
from tests.cluster.policies import World, rules

COMPONENTS = ("edge", "budget", "audit", "nats", "clickhouse", "console", "stranger")
ADDRESS = {name: f"198.18.0.{number}" for number, name in enumerate(COMPONENTS, 2)}
OUTSIDE, METADATA = "203.0.113.9", "169.254.169.254"


def pod(name: str) -> Object:
    ours = {"app.kubernetes.io/name": "sluicegate", "app.kubernetes.io/instance": "gate"}
    labels = {} if name == "stranger" else {**ours, "app.kubernetes.io/component": name}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "llm", "labels": labels},
        "spec": {"containers": [{"name": name}]},
        "status": {"podIP": ADDRESS[name], "phase": "Running"},
    }


def passes(written: str, sender: str, receiver: str, port: int) -> bool:
    """Whether a new connection gets through the chain PODS."""

    def walk(chain: str) -> bool:
        for line in (line for line in written.splitlines() if line.startswith(f"-A {chain} ")):
            words = line.split()[2:]
            if "--ctstate" in words or not matches(words):
                continue
            target = words[words.index("-j") + 1]
            if target == "RETURN":
                return True
            if target == "DROP" or not walk(target):
                return False
        return True

    def matches(words: list[str]) -> bool:
        for place, word in enumerate(words):
            if word in ("-s", "-d"):
                address = ipaddress.ip_address(sender if word == "-s" else receiver)
                inside = address in ipaddress.ip_network(words[place + 1])
                if inside == (place > 0 and words[place - 1] == "!"):
                    return False
            if (word == "-p" and words[place + 1] != "tcp") or (word == "--dport" and words[place + 1] != str(port)):
                return False
        return True

    return walk("PODS")


@pytest.mark.parametrize(
    ("sender", "receiver", "port", "wanted"),
    [
        ("edge", "nats", 4222, True),
        ("edge", "nats", 8222, False),
        ("edge", "clickhouse", 8123, False),
        ("budget", "nats", 8222, True),
        ("budget", "clickhouse", 8123, True),
        ("audit", "clickhouse", 8123, False),
        ("stranger", "nats", 4222, False),
        ("stranger", "edge", 8080, True),
        ("audit", "edge", 8080, False),
        ("edge", OUTSIDE, 443, True),
        ("edge", OUTSIDE, 80, False),
        ("edge", METADATA, 443, False),
        ("audit", OUTSIDE, 443, False),
        ("stranger", OUTSIDE, 80, True),
    ],
)
def test_a_connection_passes_exactly_where_both_ends_allow_it(
    sender: str, receiver: str, port: int, wanted: bool
) -> None:
    space: Object = {"kind": "Namespace", "metadata": {"name": "llm"}}
    policies = [each for each in of_ci("trial") if each["kind"] == "NetworkPolicy"]
    written = rules(World([space, *policies, *map(pod, COMPONENTS)]))
    assert passes(written, ADDRESS[sender], ADDRESS.get(receiver, receiver), port) == wanted
