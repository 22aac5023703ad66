"""`sluicegate budgets`"""

import json
from collections.abc import Mapping
from typing import Any

import click

from services.cli import options, output
from services.cli.api import Target, unit
from services.cli.commands.get import COLUMNS, shortly
from services.cli.output import Column, dollars

GRANTS = (
    Column("amount", "amount_nano_usd", dollars, right=True),
    Column("granted at", "granted_at", shortly),
    Column("ends", "expires_at", shortly),
    Column("", "ended", lambda ended: "ended" if ended else ""),
    Column("by", "actor"),
    Column("note", "note"),
    Column("grant", "uid"),
)


@click.group("budgets")
def command() -> None:
    """Balances, and money on top of a limit. BUDGET is an id as listed; a slug serves for the uid: key:dev-asha:day."""


@command.command("list")
@options.as_json
@options.targeted
def list_budgets(as_json: bool, target: Target) -> None:
    """All budgets as they stand; the limit shown includes grants and what rolled over."""
    output.show(target.api().all("/api/v1/budgets"), COLUMNS["budgets"], as_json=as_json, empty="no budgets")


@command.command("grant")
@click.argument("budget")
@click.argument("usd")
@click.option("--until", default="", help="Date or RFC 3339 instant; what is not used by then lapses.")
@click.option("--note", default="", help="Why, for those who read the list.")
@options.as_json
@options.targeted
def grant(budget: str, usd: str, until: str, note: str, as_json: bool, target: Target) -> None:
    """Add money: a top-up of a `total`, elsewhere for the present period. In force at once."""
    body = {"amount_usd": usd, "expires_at": until, "note": note}
    _show(target.api().post(f"/api/v1/budgets/{unit(budget)}/grants", body), "granted", as_json)


@command.command("grants")
@click.argument("budget")
@options.as_json
@options.targeted
def grants(budget: str, as_json: bool, target: Target) -> None:
    """All that was ever granted to a budget, the newest first."""
    found = target.api().get(f"/api/v1/budgets/{unit(budget)}/grants")["items"]
    output.show(found, GRANTS, as_json=as_json, empty="no grants")


@command.command("take-back")
@click.argument("budget")
@click.argument("grant")
@options.as_json
@options.targeted
def take_back(budget: str, grant: str, as_json: bool, target: Target) -> None:
    """End a grant now. What was used of it stays paid."""
    answer = target.api().raw("DELETE", f"/api/v1/budgets/{unit(budget)}/grants/{unit(grant)}")
    _show(json.loads(answer), "taken back", as_json)


def _show(changed: Mapping[str, Any], done: str, as_json: bool) -> None:
    if as_json:
        output.show_json(dict(changed))
        return
    print(f"{dollars(changed['grant']['amount_nano_usd'])} {done}: {changed['grant']['uid']}")
    if balance := changed["balance"]:
        print(f"{balance['id']}: {told(balance)}, {dollars(balance['remaining_nano_usd'])} left")


def told(balance: Mapping[str, Any]) -> str:
    """`$1.00 spent of $5.00 + $2.00 granted + $1.10 rolled over`"""
    on_top = ((balance["granted_nano_usd"], "granted"), (balance["rolled_over_nano_usd"], "rolled over"))
    own = balance["limit_nano_usd"] - sum(nano for nano, _ in on_top)
    parts = [dollars(own), *(f"{dollars(nano)} {word}" for nano, word in on_top if nano)]
    return f"{dollars(balance['spent_nano_usd'])} spent of {' + '.join(parts)}"
