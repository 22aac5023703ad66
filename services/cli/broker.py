"""How a command that reads the broker itself finds it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click
import msgspec

from services.cli.api import Target
from services.cli.errors import Trouble
from services.cli.supervisor.plan import MAY_BE_ON_THE_BUS
from services.cli.supervisor.ports import LOOPBACK
from shared.bus import BusSettings
from shared.errors import Unavailable
from shared.settings import load

F = TypeVar("F", bound=Callable[..., Any])


class Broker(NamedTuple):
    """What the options say; all empty: the one that `sluicegate up` runs."""

    service: str
    url: str
    prefix: str

    @property
    def is_local(self) -> bool:
        return not (self.service or self.url)

    def settings(self, target: Target) -> BusSettings:
        """Raises Trouble where nothing runs here, or the url is none."""
        found = load(BusSettings, f"{self.service.upper()}_BUS") if self.service else BusSettings()
        url = local(target, "nats", "nats") if self.is_local else self.url or found.url
        try:
            return msgspec.structs.replace(found, url=url, prefix=self.prefix or found.prefix)
        except ValueError as error:
            raise Trouble(str(error).replace("BUS_URL", "--bus-url")) from None


def named(function: F) -> F:
    """Add --of, --bus-url and --bus-prefix; the command gets them as one `broker`."""

    @click.option(
        "--of",
        "service",
        type=click.Choice(MAY_BE_ON_THE_BUS),
        default=None,
        help="Whose variables say where the broker is and who we are there, such as BUDGET_BUS_URL.",
    )
    @click.option("--bus-url", default="", help="The broker's, as nats://…; the one that runs here if left out.")
    @click.option("--bus-prefix", default="", help="Before every subject and stream of that installation.")
    @functools.wraps(function)
    def wrapped(*args: Any, service: str | None, bus_url: str, bus_prefix: str, **kwargs: Any) -> Any:
        return function(*args, broker=Broker(service or "", bus_url, bus_prefix), **kwargs)

    return wrapped  # type: ignore[return-value]  # a decorator that takes three options away cannot be typed


def local(target: Target, scheme: str, name: str) -> str:
    """Where a part of the `sluicegate up` that is meant listens."""
    if (running := target.running()) is None:
        raise Trouble(
            f"nothing runs on {target.data_dir}: start it with `sluicegate up`, or name a broker with --bus-url"
        )
    return f"{scheme}://{LOOPBACK}:{running[name]}"


def unreadable(settings: BusSettings, error: Unavailable) -> Trouble:
    """In one line, with what the broker said last."""
    return Trouble(f"the broker at {settings.shown} cannot be read ({reason(error)}); is `sluicegate up` running?")


def reason(error: Unavailable) -> str:
    cause = error.__cause__
    return (str(cause) or repr(cause)) if cause else str(error)
