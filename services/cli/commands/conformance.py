"""`sluicegate conformance`"""

import asyncio
from pathlib import Path

import click

from services.cli import options, output
from services.cli.conformance import report as reports
from services.cli.conformance import stage
from services.cli.conformance.scene import Facts
from services.cli.conformance.stage import Asked
from shared import logs

FILE = click.Path(path_type=Path, exists=True)


@click.command("conformance")
@click.option(
    "--self", "own", is_flag=True, help="Look at a private Sluicegate that is started for it, with all there is."
)
@click.option("--base-url", default="", help="The gateway's, as Claude Code gets it: without /v1.")
@click.option(
    "--key", default="", envvar="CONFORMANCE_KEY", help="A key that may do anything, with a budget that has room."
)
@click.option("--spent-key", default="", help="One with no budget left.")
@click.option("--warned-key", default="", help="One that has used more than three quarters of its budget.")
@click.option("--revoked-key", default="", help="One that was revoked.")
@click.option("--limited-key", default="", help="One that may have one request at a time, or is at its rate limit.")
@click.option("--policy-key", default="", help="One whose policy denies --denied-model and allows --allowed-model.")
@click.option("--storm-key", default="", help="One that may make --storm-requests a minute.")
@click.option("--denied-model", default=Facts.__struct_defaults__[1], show_default=True)
@click.option("--allowed-model", default=Facts.__struct_defaults__[2], show_default=True)
@click.option("--storm-requests", type=click.IntRange(2, 10), default=5, show_default=True)
@click.option("--upstream-host", default="127.0.0.1", show_default=True, help="Where our provider listens.")
@click.option("--upstream-port", type=click.IntRange(0, 65_535), default=0, help="And its port; 0: any free one.")
@click.option(
    "--no-upstream", is_flag=True, help="Leave the gateway's provider alone: look from the client's side only."
)
@click.option(
    "--wait-seconds", type=float, default=300.0, show_default=True, help="For the gateway to reach our provider."
)
@click.option("--console-url", default="", help="Of a Sluicegate: its ledger is read.")
@click.option("--admin-token", default="", envvar="SLUICEGATE_ADMIN_TOKEN", help="For --console-url.")
@click.option("--mcp-url", default="", help="Of one MCP server behind the gateway.")
@click.option(
    "--logs", type=FILE, multiple=True, help="A file or folder where no prompt may be found; may be repeated."
)
@click.option("--snippet", type=FILE, help="A file with what developers are told to set.")
@click.option(
    "--claude", type=FILE, multiple=True, help="A Claude Code program, run cut off from any network; may be repeated."
)
@click.option("--slow", is_flag=True, help="Also what takes minutes: a silence of 5 minutes.")
@click.option(
    "--strict", is_flag=True, help="Exit code 1 also when a SHOULD fails, or something could not be looked at."
)
@click.option("--only", default="", help="Items: 4,6,20.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write it to FILE: .json or Markdown.")
@options.as_json
def command(as_json: bool, strict: bool, only: str, report: Path | None, **given: object) -> None:
    """Does this gateway give Claude Code what it needs? 35 items, each with its evidence.

    Exit code 1 when a MUST fails. The gateway's provider must be pointed to an address that is printed, but for
    --no-upstream; prompts are not sent anywhere else.
    """
    asked = Asked(**given)  # type: ignore[arg-type]  # click has converted them
    if not asked.own and not (asked.base_url and asked.key):
        raise click.UsageError("name a gateway with --base-url and --key, or take a private Sluicegate with --self")
    logs.configure("error")
    found = asyncio.run(stage.report(asked, _numbers(only)))
    if report:
        text = reports.as_json(found) if report.suffix == ".json" else reports.markdown(found)
        report.write_text(text)
    if as_json:
        print(reports.as_json(found))
    else:
        output.console().print(reports.table(found))
        output.console().print(reports.summary(found))
    if found.failed or (strict and not found.spotless):
        raise SystemExit(1)


def _numbers(only: str) -> list[int]:
    parts = [part for part in only.replace(" ", "").split(",") if part]
    if not all(part.isdigit() and 1 <= int(part) <= 35 for part in parts):
        raise click.BadParameter(f"--only {only}: items are numbers from 1 to 35")
    return [int(part) for part in parts]
