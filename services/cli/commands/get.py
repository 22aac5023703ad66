"""`sluicegate get`"""

from typing import Any

import click

from services.cli import options, output
from services.cli.api import Api, Target, unit
from services.cli.output import Column, dollars, words

SHARED = (Column("managed by", "managed_by"), Column("rev", "revision", right=True))


def budgets(items: Any) -> str:
    """`$40 a day, $500 a month (soft)`: the limits as one reads them."""
    found = []
    for item in items or ():
        mode = item.get("mode", "hard")
        found.append(f"${item['limit_usd']} a {item['period']}" + (f" ({mode})" if mode != "hard" else ""))
    return ", ".join(found)


def shortly(instant: str | None) -> str:
    """An instant to the second; nothing for never."""
    return f"{instant[:19].replace('T', ' ')}" if instant else "never"


COLUMNS: dict[str, tuple[Column, ...]] = {
    "customers": (Column("path", "path"), Column("budgets", "budgets", budgets), Column("contact", "contact"), *SHARED),
    "teams": (Column("path", "path"), Column("budgets", "budgets", budgets), Column("contact", "contact"), *SHARED),
    "keys": (
        Column("path", "path"),
        Column("state", "state"),
        Column("owner", "owner"),
        Column("secrets", "secrets", lambda secrets: words([secret["hint"] for secret in secrets or ()])),
        Column("budgets", "budgets", budgets),
        Column("models", "models", words),
        *SHARED,
    ),
    "providers": (
        Column("name", "name"),
        Column("kind", "kind"),
        Column("base URL", "base_url"),
        Column("credentials", "credentials", lambda given: words([credential["ref"] for credential in given or ()])),
        Column("models", "models", words),
        *SHARED,
    ),
    "prices": (
        Column("scope", "scope", lambda scope: scope or "everybody"),
        Column("provider", "provider"),
        Column("models", "models", words),
        Column("percent", "percent", words, right=True),
        Column("$ per million tokens", "usd_per_million", words),
        Column("acts on", "acts_on"),
        Column("from", "from"),
        Column("until", "until"),
        *SHARED,
    ),
    "budgets": (
        Column("scope", "scope"),
        Column("of", "path"),
        Column("period", "period"),
        Column("mode", "mode"),
        Column("limit", "limit_nano_usd", dollars, right=True),
        Column("spent", "spent_nano_usd", dollars, right=True),
        Column("held", "held_nano_usd", dollars, right=True),
        Column("remaining", "remaining_nano_usd", dollars, right=True),
        Column("resets at", "resets_at", shortly),
        Column("id", "id"),
    ),
}
KINDS = ("org", *COLUMNS)


def kind_named(name: str) -> str:
    """`key`, `keys` and `organisation` mean what one expects. Raises BadParameter."""
    if name in ("org", "organisation", "organization"):
        return "org"
    plural = name if name.endswith("s") else f"{name}s"
    if plural not in COLUMNS:
        raise click.BadParameter(f"{name} is not one of {', '.join(KINDS)}")
    return plural


@click.command("get")
@click.argument("kind", type=kind_named, metavar=f"[{'|'.join(KINDS)}]")
@click.argument("name", required=False)
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True
)
@options.as_json
@options.targeted
def command(kind: str, name: str | None, form: str, as_json: bool, target: Target) -> None:
    """Show what is governed. NAME is a uid, a slug or a path like acme/platform; `get org -o yaml` is the whole file."""
    form = "json" if as_json else form
    found = _fetch(target.api(), kind, name)
    if kind == "org" and form == "table":
        form = "yaml"  # a tree is no table
    if form == "json":
        output.show_json(found)
    elif form == "yaml":
        output.show_yaml(found)
    else:
        output.show(found if isinstance(found, list) else [found], COLUMNS[kind], as_json=False)


def _fetch(api: Api, kind: str, name: str | None) -> Any:
    if kind == "org":
        return api.get("/api/v1/organisation", {"org": name})
    if name is None:
        return api.all(f"/api/v1/{kind}")
    return api.get(f"/api/v1/{kind}/{unit(name)}")
