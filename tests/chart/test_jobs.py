"""Streams, tables and the organisation: made by Jobs that work under Helm, Argo CD, Flux and `kubectl apply` alike."""

import json
import re

import pytest
import yaml

from services.cli.app import program
from tests.chart.render import NAMES, Object, containers, key, objects, of_ci, one, text

DOCUMENT = "customers:\n- id: acme\n  budgets: [{limit_usd: 1000000, period: year}]\n"


def job(found: "list[Object] | tuple[Object, ...]", name: str) -> Object:
    (hit,) = [each for each in found if each["kind"] == "Job" and f"-{name}-" in each["metadata"]["name"]]
    return hit


def name_of(name: str, more: Object | None = None, values: str = "production") -> str:
    found: str = job(objects(values, more), name)["metadata"]["name"]
    return found


@pytest.mark.parametrize("values", NAMES)
def test_streams_are_made_by_no_hook(values: str) -> None:
    """A hook before the release finds no account and no network policy; one after it waits for who waits for it."""
    made = job(of_ci(values), "provision")
    assert "annotations" not in made["metadata"]
    assert "ttlSecondsAfterFinished" not in made["spec"], "Argo CD and Flux would see it missing and make it again"
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_job_has_another_name_exactly_when_it_does_something_else() -> None:
    before = name_of("provision")
    assert before == name_of("provision", {"services": {"edge": {"replicas": 7}}, "commonLabels": {"a": "b"}})
    for more in ({"image": {"digest": ""}}, {"nats": {"streamReplicas": 1}}, {"clickhouse": {"database": "other"}}):
        assert name_of("provision", more) != before
    before = name_of("organisation")
    assert before == name_of("organisation", {"services": {"edge": {"replicas": 7}}})
    assert before != name_of("organisation", {"organisation": {"document": DOCUMENT}})
    assert re.fullmatch(r"gate-sluicegate-organisation-[0-9a-f]{10}", before)


def test_streams_have_three_copies_but_one_on_the_single_broker_of_a_trial() -> None:
    for values, copies in (("production", "3"), ("trial", "1")):
        (container,) = job(of_ci(values), "provision")["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["sluicegate", "provision", "--replicas", copies]


def test_tables_are_made_as_analytics_would_make_them() -> None:
    (container,) = job(of_ci("production"), "provision")["spec"]["template"]["spec"]["containers"]
    analytics = one(of_ci("production"), "Deployment", "-analytics")["spec"]["template"]["spec"]["containers"][0]
    told = {each["name"]: each for each in container["env"]}
    own = {
        each["name"]: each for each in analytics["env"] if re.match("ANALYTICS_(BUS|CLICK|DATA|ENG|CLUS)", each["name"])
    }
    assert told.items() >= own.items()


def test_the_organisation_is_applied_after_each_release_whoever_makes_it() -> None:
    annotations = job(of_ci("production"), "organisation")["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "post-install,post-upgrade,post-rollback"
    assert annotations["argocd.argoproj.io/hook"] == "PostSync"


def test_what_is_applied_was_shown_before_and_no_secret_is_told() -> None:
    pod = job(of_ci("production"), "organisation")["spec"]["template"]["spec"]
    (plan,), (apply,) = pod["initContainers"], pod["containers"]
    assert plan["args"][-1] == "--dry-run"
    assert "--no-secrets" in apply["args"]
    assert "--dry-run" not in apply["args"]
    (drift,) = one(of_ci("production"), "CronJob", "organisation")["spec"]["jobTemplate"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert drift["args"][-2:] == ["--dry-run", "--exit-code"]


def test_the_document_arrives_as_it_was_written() -> None:
    found = objects("trial", {"organisation": {"document": DOCUMENT}})
    data = one(found, "ConfigMap", "-organisation")["data"]
    assert data == {"org.yaml": DOCUMENT}
    assert yaml.safe_load(data["org.yaml"])["customers"][0]["budgets"][0]["limit_usd"] == 1_000_000
    (mount,) = [
        mount for mount in job(found, "organisation")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "organisation"
    ]  # fmt: skip
    assert (
        f"{mount['mountPath']}/org.yaml"
        in job(found, "organisation")["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    given = objects("everything")
    assert not [
        each for each in given if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "gate-organisation"
    ]
    assert "acme-organisation" in json.dumps(job(given, "organisation"))


@pytest.mark.parametrize("values", NAMES)
def test_every_command_of_ours_is_one_that_the_program_knows(values: str) -> None:
    pods = [each["spec"]["template"] for each in of_ci(values) if each["kind"] in ("Deployment", "StatefulSet", "Job")]
    pods += [each["spec"]["jobTemplate"]["spec"]["template"] for each in of_ci(values) if each["kind"] == "CronJob"]
    seen = 0
    for container in (container for pod in pods for container in containers(pod)):
        if container.get("args", [""])[0] != "sluicegate":
            continue
        name, *arguments = container["args"][1:]
        command = program.get_command(None, name)  # type: ignore[arg-type]  # ours does not look at the context
        assert command is not None, name
        if "-f" in arguments:
            arguments[arguments.index("-f") + 1] = "-"  # standard input, which needs no closing
        command.make_context(name, arguments)  # refuses an option that is not there
        seen += 1
    assert seen >= 7


def test_helm_test_runs_only_with_a_simulator_and_cleans_up_before_itself() -> None:
    test = one(of_ci("trial"), "Pod", "-test")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert test["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    assert "helm.sh/hook: test" not in text("production")
    compile(one(of_ci("trial"), "ConfigMap", "-test-request")["data"]["request.py"], "request.py", "exec")


@pytest.mark.parametrize("values", NAMES)
def test_a_hook_is_what_runs_and_ends_for_an_uninstall_leaves_hooks_behind(values: str) -> None:
    for each in of_ci(values):
        if "helm.sh/hook" in each["metadata"].get("annotations", {}):
            assert each["kind"] in ("Job", "Pod"), key(each)
