"""What is in the image: all that is pinned, less what the Dockerfile takes away again."""

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.image import sbom

ENGINE = "chdb"
UNLICENSED = {"dumb-init", "protobuf"}
"""Their metadata does not say it: MIT, and BSD with three clauses."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sbom")
    sbom.main(folder)
    return folder


@pytest.mark.parametrize("engine", ["", ENGINE])
def test_the_list_of_contents_names_every_package_in_its_pinned_version(written: Path, engine: str) -> None:
    name = f"sluicegate-{engine}" if engine else "sluicegate"
    told = json.loads((written / f"{name}.cdx.json").read_text())
    assert told["bomFormat"] == "CycloneDX"
    found = {canonicalize_name(each["name"]): each["version"] for each in told["components"]}
    pinned = sbom.pinned()
    assert found == {name: pinned[name] for name in sbom.packages(engine)}
    assert told["metadata"]["component"]["name"] == "sluicegate"
    without = [each["name"] for each in told["components"] if not each.get("licenses")]
    assert set(without) <= UNLICENSED, "their licence is unknown"


def test_who_needs_whom_is_told_among_what_is_listed(written: Path) -> None:
    told = json.loads((written / "sluicegate.cdx.json").read_text())
    refs = {each["bom-ref"] for each in told["components"]} | {told["metadata"]["component"]["bom-ref"]}
    of = {each["ref"]: set(each["dependsOn"]) for each in told["dependencies"]}
    assert refs >= of.keys() | set().union(*of.values())
    assert any("aiohttp" in ref for ref in of[told["metadata"]["component"]["bom-ref"]]), "of the product itself too"


def test_with_the_engine_goes_what_it_alone_needs() -> None:
    """Less would break a service, more would only be carried about."""
    wanted = [Requirement(line) for line in requires("sluicegate") or ()]
    others = [canonicalize_name(each.name) for each in wanted if applies(each) and each.name != ENGINE]
    build = {"setuptools", "dumb-init"}  # of pyproject's groups, which no metadata has
    assert sbom.removed()[0] == set(sbom.pinned()) - closure(others) - build


def test_what_installs_packages_is_not_in_the_image() -> None:
    assert sbom.removed()[1] == {"pip", "setuptools"}


def closure(names: Iterable[str]) -> set[str]:
    """They and all that they stand on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += needed(name)
    return found


def needed(name: str) -> list[str]:
    try:
        wanted = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        raise AssertionError(f"{name} is not installed") from None
    return [canonicalize_name(each.name) for each in wanted if applies(each)]


def applies(wanted: Requirement) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": ""})
