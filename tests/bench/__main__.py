"""`python -m tests.bench`: what the gateway costs, beside nginx and others, in one run; `rivals DIR` installs the others.

Everything is real but the provider: the whole of `sluicegate up` runs behind the edge. The result is kept as JSON.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from shared.clock import now, rfc3339
from tests.bench import cases, figures, machine, rivals, table
from tests.bench.gateways import Field
from tests.bench.processes import allow_many_files, provider
from tests.bench.results import FOLDER, CaseResult, Result, write


def main() -> None:
    args = arguments()
    if args.command == "rivals":
        install(args.folder)
        return
    allow_many_files()
    result = measure(args, list(cases.chosen(args.cases)))
    out = args.out or FOLDER / f"{result.at[:10]}-{result.commit}.json"
    write(out, result)
    sys.stdout.write("\n".join(table.lines(result.figures)) + f"\n{table.where(result)}\n{out}\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--cases", default="", help=f"of {','.join(cases.NAMES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="of each case (5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="that the load runs for each gateway and round (2)")
    parser.add_argument("--streams", type=int, default=5000, help="held open at a time (5000)")
    parser.add_argument("--rivals", type=Path, help="the folder that `rivals DIR` has filled")
    parser.add_argument("--soaked-mb", type=float, help="what `make soak` has found, to stand beside the rest")
    parser.add_argument(
        "--work-dir", type=Path, help="where state goes; on a real disk (the system's temporary folder)"
    )
    parser.add_argument("--out", type=Path, help=f"the result ({FOLDER.name}/DAY-COMMIT.json beside this program)")
    commands = parser.add_subparsers(dest="command")
    installing = commands.add_parser("rivals", help="make a virtual environment for each gateway in rivals.txt")
    installing.add_argument("folder", type=Path)
    return parser.parse_args()


def install(folder: Path) -> None:
    failed = rivals.install(folder)
    for name, requirement in rivals.requirements().items():
        sys.stdout.write(f"{requirement}: {failed.get(name, 'installed')}\n")


def measure(args: argparse.Namespace, names: list[str]) -> Result:
    began, (commit, changed) = time.monotonic(), machine.commit()
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=args.work_dir, ignore_cleanup_errors=True)))
        where = machine.machine(folder)
        if machine.busy(where):
            cases.say("something else runs on this machine: times and ratios will be worse than it can do")
        fake = running.enter_context(provider())
        field = Field(folder, fake, args.rivals)
        field.start(running)
        edge = field.present["edge"]
        rest, idle = cases.memory(edge), cases.idle(edge, 2 * args.seconds)
        found: dict[str, CaseResult] = {}
        for name in names:
            cases.say(name)
            if name == cases.OPEN:
                found[name] = cases.held(field.present, fake, args.streams, args.seconds * 3)
            else:
                found[name] = cases.run(cases.CASES[name], field.present, fake, args.rounds, args.seconds)
        result = Result(
            at=rfc3339(now()),
            commit=commit,
            changed=changed,
            seconds=round(time.monotonic() - began, 1),
            options={"rounds": args.rounds, "seconds": args.seconds, "streams": args.streams},
            machine=where,
            versions=machine.versions(set(field.present)),
            accounting=cases.ACCOUNTING,
            gateways={name: gateway.what for name, gateway in field.present.items()},
            absent=field.absent,
            cases=found,
            idle_cpu_us_per_second=idle,
            rest_mb=rest,
            after_mb=cases.memory(edge),
            soaked_mb=args.soaked_mb,
        )
    result.figures = figures.figures(result)
    return result


if __name__ == "__main__":
    main()
