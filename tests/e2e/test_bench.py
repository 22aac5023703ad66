"""The benchmarks run: a second of the smallest cases, with everything real behind the edge. What they measure is not judged."""

import asyncio
import sys
from pathlib import Path

from tests.bench.results import read


async def test_a_short_run_of_the_benchmarks_measures_the_edge_and_all_that_works_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = ("--cases", "open,json", "--rounds", "1", "--seconds", "0.3", "--streams", "20")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench", *options, "--work-dir", str(tmp_path), "--out", str(out)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    result = read(out)
    (measured,) = result.cases["json"].rounds
    assert {"direct", "wire", "edge"} <= set(measured)
    assert ("nginx" in measured) != ("nginx" in result.absent)
    for name, each in measured.items():
        assert each.requests > 0, name
        assert (each.errors, each.first_error) == (0, ""), name
        assert each.cpu_us > 0, name
    assert {"edge", "nats", "budget", "pricing", "audit", "analytics", "console"} <= set(measured["edge"].by_process)
    assert result.cases["open"].failed == {}
    assert all(held.whole == held.streams == 20 for held in result.cases["open"].held.values())
    assert set(result.absent) >= {"tensorzero", "litellm"}
    assert "open.edge.memory" in said.decode()
