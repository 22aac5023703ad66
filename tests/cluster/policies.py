"""Puts NetworkPolicies in force on a node of `binaries`, where nothing else does: what pods may send, as rules of iptables.

It runs beside the kubelet, looks at pods and policies each second, and writes the chain PODS anew where something changed. Pods
are reached by routes there, so that all packets between two of them pass FORWARD; what the node says to its pods does not.

`python -m tests.cluster.policies KUBECTL`
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
SECONDS = 1.0


def labels_match(selector: Object, labels: dict[str, str]) -> bool:
    """Only what we write: no matchExpressions."""
    if selector.get("matchExpressions"):
        raise ValueError(f"{selector} is more than this understands")
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


class World:
    """All pods that have an address of their own, all policies, and the labels of all namespaces."""

    def __init__(self, found: list[Object]) -> None:
        self.policies = [each for each in found if each["kind"] == "NetworkPolicy"]
        self.spaces = {
            each["metadata"]["name"]: each["metadata"].get("labels", {})
            for each in found
            if each["kind"] == "Namespace"
        }
        self.pods = [
            (each["metadata"]["namespace"], each["metadata"].get("labels", {}), each["status"]["podIP"], each["spec"])
            for each in found
            if each["kind"] == "Pod"
            and each["status"].get("podIP")
            and each["status"]["phase"] in ("Pending", "Running")
        ]

    def matches(self, space: str, peer: Object, end: str) -> list[list[str]]:
        """Options of iptables for whom a peer means in a policy of that namespace. end: -s or -d."""
        if block := peer.get("ipBlock"):
            if ":" in block["cidr"]:
                return []  # there is no IPv6 between these pods
            match block["cidr"], block.get("except", []):
                case cidr, []:
                    return [[end, cidr]]
                case "0.0.0.0/0", [left_out]:
                    return [["!", end, left_out]]
            raise ValueError(f"{block} is more than this understands")
        spaces = {space}
        if "namespaceSelector" in peer:
            spaces = {name for name, labels in self.spaces.items() if labels_match(peer["namespaceSelector"], labels)}
        selector = peer.get("podSelector", {})
        return [[end, ip] for where, labels, ip, _ in self.pods if where in spaces and labels_match(selector, labels)]


def ports(rule: Object, containers: list[Object]) -> list[list[str]]:
    """Options of iptables, one list for each; a named port is looked up in the pod."""
    names = {
        port["name"]: port["containerPort"] for each in containers for port in each.get("ports", ()) if "name" in port
    }
    return [
        ["-p", port.get("protocol", "TCP").lower(), "--dport", str(names.get(port["port"], port["port"]))]
        for port in rule.get("ports", ())
    ] or [[]]


def chain(
    world: World, space: str, direction: str, policies: list[Object], containers: list[Object]
) -> Iterator[list[str]]:
    """Rules that let pass what one pod may get (ingress) or send (egress); all else falls through to the end."""
    end, peers = ("-s", "from") if direction == "Ingress" else ("-d", "to")
    for policy in policies:
        for rule in policy["spec"].get(direction.lower(), ()):
            for port in ports(rule, containers):
                if not rule.get(peers):
                    yield [*port, "-j", "RETURN"]
                for peer in rule.get(peers, ()):
                    yield from ([*port, *match, "-j", "RETURN"] for match in world.matches(space, peer, end))


def rules(world: World) -> str:
    """For iptables-restore: a packet goes through the chain of its sender, then through that of its receiver."""
    declared, first, inner = ["*filter", ":PODS - [0:0]"], [], []
    for number, (space, labels, ip, spec) in enumerate(world.pods):
        mine = [
            each for each in world.policies
            if each["metadata"]["namespace"] == space and labels_match(each["spec"]["podSelector"], labels)
        ]  # fmt: skip
        for direction, end in (("Egress", "-s"), ("Ingress", "-d")):
            of_it = [each for each in mine if direction in each["spec"]["policyTypes"]]
            if not of_it:
                continue
            name = f"POD-{number}-{direction}"
            declared.append(f":{name} - [0:0]")
            first.append(f"-A PODS {end} {ip} -j {name}")
            containers = spec["containers"]
            inner += [f"-A {name} {' '.join(rule)}" for rule in chain(world, space, direction, of_it, containers)]
            inner.append(f"-A {name} -j DROP")
    begun = "-A PODS -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
    return "\n".join([*declared, begun, *first, *inner, "COMMIT", ""])


def main() -> None:
    kubectl = sys.argv[1]
    forward = ["iptables", "-I", "FORWARD", "-j", "PODS"]
    subprocess.run(["iptables", "-N", "PODS"], check=True)
    subprocess.run(forward, check=True)
    before = ""
    while True:
        asked = [kubectl, "get", "namespaces,pods,networkpolicies", "--all-namespaces", "--output", "json"]
        now = rules(World(json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)["items"]))
        if now != before:
            subprocess.run(["iptables-restore", "--noflush"], input=now, text=True, check=True)
            before = now
        time.sleep(SECONDS)


if __name__ == "__main__":
    main()
