"""`sluicegate apply`"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from services.cli import options, output
from services.cli.api import Target
from services.cli.core import in_force
from services.cli.errors import Trouble
from services.cli.output import Column, words
from services.cli.supervisor import organisation

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
@options.as_json
@options.targeted
def command(file: Any, dry_run: bool, prune: bool, reason: str, as_json: bool, target: Target) -> None:
    """Apply an organisation file. Applying it again changes nothing, and never a balance."""
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
    if as_json:
        output.show_json(answer)
        return
    output.show(answer["changes"], CHANGES, as_json=False, empty="nothing to change")
    for line in warnings(answer["changes"]):
        print(line)
    if answer.get("secrets"):
        output.console().print()
        output.show(answer["secrets"], SECRETS, as_json=False)
    if routed != text:
        print(f"\nwithout ANTHROPIC_API_KEY, Anthropic's traffic stays with the simulator at {simulator_url}")
    print("\nnothing was changed: a dry run" if dry_run else f"\nin force as revision {answer['config_rev']}")
    for line in in_force.words(answer.get("in_force")):
        print(line)


def warnings(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Budgets whose count begins anew, which hardly anybody means to."""
    found = [f"! {row['path']}: {told}" for row in changes for told in row.get("warnings", ())]
    return ["", *found] if found else []


def _routed(text: str, name: str, simulator_url: str) -> str:
    """As `up` does with its file: while no key is set, what is meant for Anthropic goes to the simulator."""
    document = organisation.parse(text, name)
    routed = organisation.routed(document, simulator_url)
    return text if routed == document else organisation.dump(routed)
