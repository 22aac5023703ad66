"""`sluicegate keys`"""

from collections.abc import Mapping
from typing import Any

import click

from services.cli import options, output
from services.cli.api import Target, unit
from services.cli.commands.get import COLUMNS
from services.cli.core import in_force


@click.group("keys")
def command() -> None:
    """Make, rotate, revoke and list virtual keys. KEY is a uid, a slug or a path like acme/platform/dev-asha."""


@command.command("list")
@click.option("--team", default="", help="Only this team's.")
@options.as_json
@options.targeted
def list_keys(team: str, as_json: bool, target: Target) -> None:
    """All virtual keys; secrets are never among what is listed."""
    output.show(target.api().all("/api/v1/keys", {"team": team}), COLUMNS["keys"], as_json=as_json, empty="no keys")


@command.command("create")
@click.argument("key")
@click.option("--team", required=True, help="uid, slug or path of its team.")
@click.option("--owner", default="", help="Whose key it is, usually an e-mail address.")
@click.option("--day-usd", help="Budget of a day, in US dollars.")
@click.option("--month-usd", help="Budget of a month, in US dollars.")
@click.option("--model", "models", multiple=True, help="Shell pattern of a model it may use; several are allowed.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="For reports; several are allowed.")
@options.as_json
@options.targeted
def create(key: str, as_json: bool, target: Target, **given: Any) -> None:
    """Make a virtual key and show its secret, this once."""
    _show_secret(target.api().post("/api/v1/keys", body_of(key, given)), as_json)


def body_of(key: str, given: Mapping[str, Any]) -> dict[str, object]:
    """The API's body for the options of `keys create`. Amounts stay text, so that they stay exact."""
    limits = ((given["day_usd"], "day"), (given["month_usd"], "month"))
    pairs = [tag.partition("=") for tag in given["tags"]]
    if bad := [name for name, sign, _ in pairs if not (name and sign)]:
        raise click.BadParameter(f"--tag {bad[0]} is not NAME=VALUE")
    body: dict[str, object] = {
        "id": key,
        "team": given["team"],
        "owner": given["owner"],
        "budgets": [{"limit_usd": limit, "period": period} for limit, period in limits if limit],
        "models": list(given["models"]),
        "tags": {name: value for name, _, value in pairs},
    }
    return {name: value for name, value in body.items() if value}


@command.command("rotate")
@click.argument("key")
@click.option("--overlap-seconds", default=0, show_default=True, help="How long the old secret goes on working.")
@options.as_json
@options.targeted
def rotate(key: str, overlap_seconds: int, as_json: bool, target: Target) -> None:
    """Give a key a new secret and show it, this once."""
    made = target.api().post(f"/api/v1/keys/{unit(key)}/rotate", {"overlap_seconds": overlap_seconds})
    _show_secret(made, as_json)


@command.command("revoke")
@click.argument("key")
@options.as_json
@options.targeted
def revoke(key: str, as_json: bool, target: Target) -> None:
    """Refuse everything with this key from now on."""
    found = target.api().post(f"/api/v1/keys/{unit(key)}/revoke", query=in_force.WAIT)
    if as_json:
        output.show_json(found)
    else:
        print("\n".join([f"{found['path']} is revoked", *in_force.words(found.get("in_force"))]))


def _show_secret(made: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.show_json(dict(made))
    else:
        print(f"{made['path']}\n  secret, shown this once: {made['secret']}")
