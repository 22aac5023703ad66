"""Your NATS: what says to it who we are reaches every process that talks to it, as files that nobody else can read."""

import pytest

from tests.chart.render import Object, containers, objects, of_ci, one, pods

AT = "/etc/sluicegate/nats"


def on_the_bus(values: str) -> list[tuple[str, Object, Object]]:
    """(owner, pod, container) of all that is told where the broker is."""
    return [
        (owner, pod, each)
        for owner, pod in pods(of_ci(values))
        for each in containers(pod)
        if any(variable["name"].endswith("_BUS_URL") for variable in each.get("env", ()))
    ]


@pytest.mark.parametrize(
    ("values", "files"),
    [
        (
            "nats-credentials",
            {"CREDENTIALS": "user.creds", "TLS_CA": "ca.crt", "TLS_CERT": "tls.crt", "TLS_KEY": "tls.key"},
        ),
        ("nats-nkey", {"NKEY_SEED": "user.nk"}),
        ("production", {}),
    ],
)
def test_each_file_that_a_variable_names_is_there(values: str, files: dict[str, str]) -> None:
    found = on_the_bus(values)
    kinds = {owner.split("/")[0] for owner, _, _ in found}
    assert kinds == {"Deployment", "StatefulSet", "Job"}
    for owner, pod, container in found:
        named = {
            variable["name"].partition("_BUS_")[2].removesuffix("_FILE"): variable["value"]
            for variable in container["env"]
            if "_BUS_" in variable["name"] and variable["name"].endswith("_FILE")
        }
        assert named == {what: f"{AT}/{file}" for what, file in files.items()}, owner
        mounted = [each["name"] for each in container["volumeMounts"] if each["mountPath"] == AT and each["readOnly"]]
        assert bool(mounted) == bool(files), owner
        for volume in pod["spec"]["volumes"]:
            if volume["name"] in mounted:
                projected = volume["projected"]
                paths = [item["path"] for source in projected["sources"] for item in source["secret"]["items"]]
                assert sorted(paths) == sorted(files.values()), owner
                assert projected["defaultMode"] == 0o440


def test_a_password_is_told_only_where_nothing_else_says_who_we_are() -> None:
    for values, told in (("production", True), ("nats-credentials", False), ("nats-nkey", False)):
        for owner, _, container in on_the_bus(values):
            names = {variable["name"].partition("_BUS_")[2] for variable in container["env"]}
            assert ({"USER", "PASSWORD"} <= names) is told, owner


def test_what_does_not_talk_to_the_broker_does_not_get_its_files() -> None:
    talking = {owner for owner, _, _ in on_the_bus("nats-credentials")}
    others = [(owner, pod) for owner, pod in pods(of_ci("nats-credentials")) if owner not in talking]
    assert others
    for owner, pod in others:
        assert not [each for each in pod["spec"].get("volumes", ()) if each["name"] == "nats"], owner


def test_every_port_of_several_servers_may_be_reached_and_each_once() -> None:
    def ports(url: str) -> list[int]:
        policy = one(objects("openshift", {"nats": {"url": url}}), "NetworkPolicy", "-pricing")
        return [port["port"] for rule in policy["spec"]["egress"][1:] for port in rule["ports"]]

    assert ports("nats://a.nats.svc:4222,nats://b.nats.svc:4222") == [4222]
    assert ports("tls://u:p@a.nats.svc:4443, tls://b.nats.svc,tls://c:4443") == [4443, 4222]
