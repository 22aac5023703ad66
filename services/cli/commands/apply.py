"""`sluicegate apply`"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from services.cli import options, output
from services.cli.api import Target
from services.cli.commands.status import fetch
from services.cli.core import in_force
from services.cli.errors import Trouble
from services.cli.output import Column, words
from services.cli.supervisor import organisation

DRIFTED = 3
POLL_SECONDS = 1.0
SIGNS = {"create": "+ create", "change": "~ change", "delete": "- delete", "keep": "  keep"}
CHANGES = (
    Column("", "action", lambda action: SIGNS.get(action, action)),
    Column("kind", "kind"),
    Column("path", "path"),
    Column("fields", "fields", words),
)
SECRETS = (Column("key", "key"), Column("secret, shown this once", "secret"))


@click.command("apply")
@click.option(
    "-f", "--file", "file", required=True, type=click.File("r"), help="Organisation file; - is standard input."
)
@click.option("--dry-run", is_flag=True, help="Only show the difference.")
@click.option("--prune", is_flag=True, help="Delete what the file leaves out, whoever manages it.")
@click.option("--reason", default="", help="For the audit record.")
@click.option("--exit-code", is_flag=True, help=f"With --dry-run: end with {DRIFTED} where something would change.")
@click.option("--no-secrets", is_flag=True, help="Do not show the secrets of new keys; `keys rotate` gives another.")
@click.option("--wait-seconds", default=0.0, help="For a console that does not answer yet.")
@options.as_json
@options.targeted
def command(
    file: Any,
    dry_run: bool,
    prune: bool,
    reason: str,
    exit_code: bool,
    no_secrets: bool,
    wait_seconds: float,
    as_json: bool,
    target: Target,
) -> None:
    """Apply an organisation file. Applying it again changes nothing, and never a balance."""
    wait_for(target, wait_seconds)
    try:
        text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{Path(file.name)} cannot be read: {error}") from None
    simulator_url = target.simulator_url()
    routed = _routed(text, file.name, simulator_url) if simulator_url else text
    query: dict[str, str | None] = {
        "dry_run": "true" if dry_run else None,
        "prune": "true" if prune else None,
        "reason": reason,
    }
    with Console(stderr=True).status("applying"):
        if routed != text:  # the console reads the text as it was written, and refuses what a rewritten one would hide
            target.api().post_yaml("/api/v1/organisation", text, query | {"dry_run": "true"})
        answer = target.api().post_yaml(
            "/api/v1/organisation", routed, query if dry_run else {**query, **in_force.WAIT}
        )
    drifted = DRIFTED if dry_run and exit_code and differs(answer["changes"]) else 0
    if no_secrets:
        answer |= {"secrets": [], "secrets_not_shown": [made["key"] for made in answer.get("secrets") or ()]}
    if as_json:
        output.show_json(answer)
        raise SystemExit(drifted)
    output.show(answer["changes"], CHANGES, as_json=False, empty="nothing to change")
    for line in warnings(answer["changes"]):
        print(line)
    if answer.get("secrets"):
        output.console().print()
        output.show(answer["secrets"], SECRETS, as_json=False)
    for key in answer.get("secrets_not_shown", ()):
        print(f"{key} is new; its secret is not shown: `sluicegate keys rotate {key}` gives it another")
    if routed != text:
        print(f"\nwithout ANTHROPIC_API_KEY, Anthropic's traffic stays with the simulator at {simulator_url}")
    print("\nnothing was changed: a dry run" if dry_run else f"\nin force as revision {answer['config_rev']}")
    for line in in_force.words(answer.get("in_force")):
        print(line)
    raise SystemExit(drifted)


def wait_for(target: Target, seconds: float) -> None:
    """Return when the console answers, or after so long; who calls it next says what is wrong."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and fetch(f"{target.console_url()}/healthz") is None:
        time.sleep(POLL_SECONDS)


def differs(changes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether applying the file would change anything; what is merely kept, since somebody else manages it, is no change."""
    return any(change["action"] != "keep" for change in changes)


def warnings(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Budgets whose count begins anew, which hardly anybody means to."""
    found = [f"! {row['path']}: {told}" for row in changes for told in row.get("warnings", ())]
    return ["", *found] if found else []


def _routed(text: str, name: str, simulator_url: str) -> str:
    """As `up` does with its file: while no key is set, what is meant for Anthropic goes to the simulator."""
    document = organisation.parse(text, name)
    routed = organisation.routed(document, simulator_url)
    return text if routed == document else organisation.dump(routed)
