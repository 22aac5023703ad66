"""`sluicegate orgs`"""

import json

import click

from services.cli import options, output
from services.cli.api import Target, unit
from services.cli.core import in_force

WAIT = {"wait": "10"}
"""An organisation that moves takes what it has spent and holds with it."""


@click.group("orgs")
def command() -> None:
    """Organisations as a whole. ORG is a slug or a uid."""


@command.command("move")
@click.argument("org")
@click.option("--shard", required=True, help="Of the ledger, where it lives from then on.")
@options.as_json
@options.targeted
def move(org: str, shard: str, as_json: bool, target: Target) -> None:
    """Move an organisation to another shard of the ledger, under load: nothing is lost, and nobody is refused for it."""
    body = json.dumps({"shard": shard}).encode()
    found = json.loads(target.api().raw("PATCH", f"/api/v1/orgs/{unit(org)}", body, query=WAIT))
    if as_json:
        output.show_json(found)
        return
    done = f"{org} moves to shard {shard}" if found["changes"] else f"{org} lives in shard {shard} already"
    print("\n".join([done, *in_force.words(found.get("in_force"))]))
