"""Options that several commands share."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from services.cli.api import Target

F = TypeVar("F", bound=Callable[..., Any])


def targeted(function: F) -> F:
    """Add --url, --token and --data-dir; the command gets them as one `target`."""

    @click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        default=Path(".sluicegate"),
        show_default=True,
        envvar="SLUICEGATE_DATA_DIR",
        help="Of the `sluicegate up` that is meant.",
    )
    @click.option(
        "--url", default="", envvar="SLUICEGATE_URL", help="The console's, instead of the one that runs here."
    )
    @click.option("--token", default="", envvar="SLUICEGATE_ADMIN_TOKEN", help="The admin token.")
    @functools.wraps(function)
    def wrapped(*args: Any, data_dir: Path, url: str, token: str, **kwargs: Any) -> Any:
        return function(*args, target=Target(data_dir, url, token), **kwargs)

    return wrapped  # type: ignore[return-value]  # a decorator that takes three options away cannot be typed


def as_json(function: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="For programs.")(function)
