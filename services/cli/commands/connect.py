"""`sluicegate connect`"""

import os
import time
from pathlib import Path

import click

from services.cli import options
from services.cli.api import Target
from services.cli.core import connect
from services.cli.errors import Trouble
from services.cli.supervisor.data import Layout, read_secret


@click.command("connect")
@click.option("--write", is_flag=True, help="Merge into the settings file; what it held is kept beside it as .bak.")
@click.option("--project", is_flag=True, help="Of this project: .claude/settings.local.json, which is not committed.")
@click.option("--settings", type=click.Path(path_type=Path, dir_okay=False), help="Another settings file.")
@click.option(
    "--shell", type=click.Choice(["bash", "fish"]), help='Print lines for the shell: eval "$(… --shell bash)".'
)
@click.option(
    "--key", envvar="SLUICEGATE_KEY", default="", help="Virtual key; the first one of this data directory if left out."
)
@click.option("--base-url", default="", help="The edge's, with /anthropic; the one that runs here if left out.")
@click.option(
    "--haiku-model", default=connect.HAIKU, show_default=True, help='For background calls; "" leaves it to the client.'
)
@click.option("--ci", is_flag=True, help="Give up after three retries: a job should fail, not wait.")
@click.option(
    "--streams-only",
    is_flag=True,
    help="Never send a broken stream again as a whole: saves a second bill, older clients end the turn.",
)
@options.targeted
def command(
    write: bool,
    project: bool,
    settings: Path | None,
    shell: str | None,
    key: str,
    base_url: str,
    haiku_model: str,
    ci: bool,
    streams_only: bool,
    target: Target,
) -> None:
    """Point Claude Code to this gateway: print its settings, print shell lines, or write them."""
    wanted = connect.variables(
        base_url or base_url_of(target), key or first_key_of(target), haiku_model, ci=ci, streams_only=streams_only
    )
    path = settings or (Path(".claude/settings.local.json") if project else Path.home() / ".claude" / "settings.json")
    if write:
        _write(path, wanted)
    elif shell:
        print(connect.shell_lines(wanted, shell))
    else:
        print(connect.dump({"env": wanted}), end="")
        click.echo(f"--write merges this into {path}", err=True)


def base_url_of(target: Target) -> str:
    """Of the edge that runs here."""
    if (running := target.running()) is None:
        raise Trouble(
            f"nothing runs on {target.data_dir}: start it with `sluicegate up`, or name the edge with --base-url"
        )
    return f"{running['edge_url']}/anthropic"


def first_key_of(target: Target) -> str:
    """The virtual key that `up` shows."""
    if found := read_secret(Layout(target.data_dir).first_key):
        return found
    raise Trouble("no virtual key is known here: name one with --key (`sluicegate keys create` makes one)")


def _write(path: Path, wanted: dict[str, str]) -> None:
    path = path.resolve()  # a settings file is often a link into a repository of dot files: the link stays
    try:
        before = path.read_text() if path.exists() else ""
        settings = connect.parse(before, str(path))
        after = connect.dump(connect.merged(settings, wanted))
        for warning in connect.warnings(settings):
            click.echo(f"note: {warning}", err=True)
        if after == before:
            print(f"{path} says so already")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if before:
            backup = path.with_name(f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}.bak")
            _put(backup, before, 0o600)
            click.echo(f"what was there is in {backup}", err=True)
        _put(path, after, path.stat().st_mode & 0o777 if path.exists() else 0o600)
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error.strerror}") from None
    print(f"{path} now points Claude Code to {wanted['ANTHROPIC_BASE_URL']}")


def _put(path: Path, text: str, mode: int) -> None:
    """Replace the file at once: Claude Code may read it at any moment."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.chmod(mode)
    part.replace(path)
