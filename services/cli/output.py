"""Tables for people, JSON for programs, and how amounts are written."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

NANO = 1_000_000_000

Row = Mapping[str, Any]


class Column(msgspec.Struct, frozen=True):
    """One column of a table. show: from the value to what a person reads."""

    title: str
    field: str
    show: Callable[[Any], str] = str
    right: bool = False


def dollars(nano_usd: int | None) -> str:
    """Exact: trailing zeros go, but never below cents. Empty where there is no amount."""
    if nano_usd is None:
        return ""
    sign, whole = ("-" if nano_usd < 0 else ""), abs(int(nano_usd))
    fraction = f"{whole % NANO:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole // NANO:,}.{fraction}"


def words(value: Any) -> str:
    """A plain value in a cell: nothing for None, lists joined."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(words(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}={words(item)}" for name, item in value.items())
    return str(value)


def count(value: int | None) -> str:
    return "" if value is None else f"{int(value):,}"


def table(rows: Iterable[Row], columns: Sequence[Column], title: str = "") -> Table:
    """Text is shown as it is: brackets in a name are no markup."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(column.show(row.get(column.field))) for column in columns))
    return made


def console() -> Console:
    """Standard output. A pipe has no width: nothing is cut or folded there."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=400)


def show(
    rows: Sequence[Row], columns: Sequence[Column], *, as_json: bool, title: str = "", empty: str = "nothing"
) -> None:
    if as_json:
        show_json(list(rows))
    elif rows:
        console().print(table(rows, columns, title))
    else:
        console().print(empty)


def show_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_yaml(value: object) -> None:
    print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")
