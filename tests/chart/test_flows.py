"""Who may reach whom: nothing but what is needed, and both ends agree."""

import pytest

from tests.chart.render import NAMES, Object, objects, of_ci, one

BUS = {"nats"}
NEEDED = {
    "edge": BUS | {"upstream", "simulator"},
    "budget": BUS | {"monitor", "clickhouse"},
    "pricing": BUS,
    "audit": BUS,
    "analytics": BUS | {"clickhouse"},
    "console": BUS | {"clickhouse"},
    "telemetry": BUS | {"otlp"},
    "simulator": set[str](),
    "provision": BUS | {"clickhouse"},
    "organisation": {"console"},
    "test": {"edge", "console"},
}
"""A table of its own, not read from the chart: what `services/*/README.md` says."""

PORTS = {
    "nats": 4222,
    "monitor": 8222,
    "clickhouse": 8123,
    "upstream": 443,
    "otlp": 4318,
    "simulator": 8080,
    "edge": 8080,
    "console": 8081,
}
TRIAL: Object = {
    "organisation": {"document": "contact: x"},
    "services": {"telemetry": {"enabled": True, "otlp": {"endpoint": "http://collector:4318"}}},
}


def policies(found: list[Object]) -> dict[str, Object]:
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]
        for each in found
        if each["kind"] == "NetworkPolicy"
    }


def component(peer: Object) -> str:
    name: str = peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    return name


def outgoing(policy: Object) -> set[tuple[str, int]]:
    """(component or "", port) of every rule beside DNS."""
    found = set()
    for rule in policy.get("egress", ()):
        for port in rule["ports"]:
            names = [component(peer) for peer in rule.get("to", ()) if "podSelector" in peer] or [""]
            found |= {(name, port["port"]) for name in names if port["port"] not in (53, 5353)}
    return found


def test_every_pod_is_denied_everything_that_no_policy_names() -> None:
    deny = policies(objects("trial", TRIAL))["default-deny"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not deny.keys() & {"ingress", "egress"}
    assert "app.kubernetes.io/component" not in deny["podSelector"]["matchLabels"]


def test_each_part_reaches_what_it_needs_and_nothing_else() -> None:
    found = policies(objects("trial", TRIAL))
    assert found.keys() == NEEDED.keys() | {"default-deny", "nats", "clickhouse"}
    for part, needed in NEEDED.items():
        there = {"monitor": "nats", "upstream": "", "otlp": ""}
        assert outgoing(found[part]) == {(there.get(name, name), PORTS[name]) for name in needed}, part
    assert outgoing(found["nats"]) == outgoing(found["clickhouse"]) == set()


def test_whoever_may_be_called_lets_the_caller_in() -> None:
    found = policies(
        objects(
            "trial",
            TRIAL
            | {
                "services": TRIAL["services"]
                | {
                    name: {"networkPolicy": {"from": [{"podSelector": {}}]}}
                    for name in ("edge", "console", "simulator")
                }
            },
        )
    )
    for part, policy in found.items():
        for target, port in outgoing(policy):
            if target:
                doors = [rule for rule in found[target]["ingress"] if {"port": port} in rule["ports"]]
                admitted = {component(peer) for door in doors for peer in door.get("from", ()) if peer["podSelector"]}
                assert part in admitted or any("from" not in door for door in doors), f"{part} → {target}"


def test_without_a_simulator_nobody_may_reach_one() -> None:
    found = policies(list(of_ci("production")))
    assert not {"simulator", "test"} & found.keys()
    assert outgoing(found["edge"]) == {("", 4222), ("", 443)}


def test_neighbours_of_yours_are_reached_where_you_say_and_at_their_own_port() -> None:
    found = policies(list(of_ci("production")))
    where = {port["port"]: rule.get("to") for rule in found["budget"]["egress"] for port in rule["ports"]}
    assert (
        where[4222] == where[8222] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "nats"}}}]
    )
    assert where[8443] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "clickhouse"}}}]
    assert where[53] is None


def test_the_machines_own_metadata_service_is_not_a_provider() -> None:
    upstream = [rule for rule in policies(list(of_ci("trial")))["edge"]["egress"] if rule["ports"] == [{"port": 443}]]
    assert upstream[0]["to"][0]["ipBlock"] == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}


@pytest.mark.parametrize("values", NAMES)
def test_probes_and_metrics_use_a_port_that_clients_do_not(values: str) -> None:
    edge = one(of_ci(values), "StatefulSet", "-edge")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in edge["ports"]}
    assert ports["http"] != ports["edge"]
    front = one(of_ci(values), "Service", "-edge")["spec"]["ports"]
    assert [port["targetPort"] for port in front] == ["edge"]
