"""What is in the image, as CycloneDX: all packages of Python. What the base brings is on a list of its publisher's.

`python -m tests.image.sbom FOLDER` writes `sluicegate.cdx.json` and, with the embedded engine, `sluicegate-chdb.cdx.json`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".cache" / "image-tools"
RUN = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('cyclonedx_py', run_name='__main__')"
"""The tools are found by this process alone, and not by the one that it asks what is installed."""

Bom = dict[str, Any]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = bom()
    for engine in ("", "chdb"):
        name = "-".join(filter(None, ("sluicegate", engine)))
        path = folder / f"{name}.cdx.json"
        path.write_text(json.dumps(only(whole, packages(engine)), indent=1, sort_keys=True) + "\n")


def pinned() -> dict[str, str]:
    """Version by name of all that requirements.txt installs here."""
    lines = re.findall(r"^(\S.*?)(?: \\)?$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    return {
        canonicalize_name(each.name): str(each.specifier).removeprefix("==")
        for each in wanted
        if each.marker is None or each.marker.evaluate()
    }


def removed() -> tuple[set[str], set[str]]:
    """(what goes with the engine, what goes always), as the Dockerfile says."""
    engine, always = re.findall(r"pip uninstall --yes ([^\n;&\\]+)", (ROOT / "Dockerfile").read_text())
    return set(engine.split()), set(always.split())


def packages(engine: str) -> set[str]:
    """Names of what is in the image. engine: "chdb" or ""."""
    with_engine, always = removed()
    return set(pinned()) - always - (set() if engine else with_engine)


def bom() -> Bom:
    """Of all that is installed beside this Python, for development too."""
    told = ("--pyproject", "pyproject.toml", "--mc-type", "application", "--output-reproducible", "--sv", "1.6")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(TOOLS), "environment", *told, "--validate", sys.executable],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: Bom = json.loads(done.stdout)
    return found


def only(whole: Bom, names: set[str]) -> Bom:
    """The part of it with these names, and with what depends on what among them."""
    components = [each for each in whole["components"] if canonicalize_name(each["name"]) in names]
    kept = {each["bom-ref"] for each in components} | {whole["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in whole["dependencies"]
        if each["ref"] in kept
    ]
    return {**whole, "components": components, "dependencies": dependencies}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
