"""`sluicegate simulate`"""

import asyncio

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.cli import options, output
from services.cli.api import Target
from services.cli.commands.connect import base_url_of, first_key_of
from services.cli.output import Column, words
from services.simulator import load
from services.simulator.load import Done, Summary

COLUMNS = (Column("", "name"), Column("", "value", words))


@click.command("simulate")
@click.option("-n", "--count", type=click.IntRange(1), help="So many requests; 100 unless --seconds is given.")
@click.option("--seconds", type=click.FloatRange(0.1), help="Or for so long.")
@click.option(
    "-c", "--concurrency", default=20, show_default=True, type=click.IntRange(1, 2000), help="Clients at once."
)
@click.option("--key", "keys", multiple=True, envvar="SLUICEGATE_KEY", help="Virtual key; several take turns.")
@click.option("--base-url", default="", help="The edge's, with /anthropic; the one that runs here if left out.")
@click.option("--model", "models", multiple=True, help="Several are drawn from; real names, as they are priced.")
@click.option("--mix", default="", metavar="KIND=WEIGHT,…", help=f"Kinds: {', '.join(load.KINDS)}.")
@click.option("--directives", default="", help="Added to each request's x-simulator header, such as output_tokens=50.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same mix.")
@options.as_json
@options.targeted
def command(
    count: int | None,
    seconds: float | None,
    concurrency: int,
    keys: tuple[str, ...],
    base_url: str,
    models: tuple[str, ...],
    mix: str,
    directives: str,
    seed: int,
    as_json: bool,
    target: Target,
) -> None:
    """Send traffic of the kind a team makes: streams, tools, caching, thinking, errors, hang-ups."""
    aim = load.Target(base_url=base_url or base_url_of(target), keys=keys or (first_key_of(target),))
    aim = msgspec.structs.replace(aim, models=models) if models else aim
    total = count if count is not None else (None if seconds is not None else 100)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("requests", total=total)

        def progress(done: Done, so_far: Summary) -> None:
            bar.update(task, completed=so_far.total)

        found = asyncio.run(
            load.simulate(
                aim,
                count=count,
                seconds=seconds,
                concurrency=concurrency,
                seed=seed,
                mix=mix_of(mix),
                directives=directives,
                progress=progress,
            )
        )
    if as_json:
        output.show_json(msgspec.to_builtins(found))
    else:
        rows = [{"name": name.replace("_", " "), "value": value} for name, value in msgspec.to_builtins(found).items()]
        output.show(rows, COLUMNS, as_json=False)


def mix_of(text: str) -> dict[load.Kind, int]:
    """`stream=3,error=1` as weights; everything's usual weight when empty. Raises BadParameter."""
    if not text:
        return dict(load.MIX)
    pairs = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(","))
    try:
        return msgspec.convert(pairs, dict[load.Kind, int], strict=False)
    except msgspec.ValidationError as error:
        raise click.BadParameter(f"--mix: {error}") from None
