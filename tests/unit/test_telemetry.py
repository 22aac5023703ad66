"""What a process tells of itself."""

import subprocess
import sys


def test_a_process_tells_only_of_its_own_service() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "from prometheus_client import generate_latest; from shared import telemetry\n"
            "telemetry.keep('edge'); print(generate_latest().decode())",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    families = {line.split()[2] for line in said.splitlines() if line.startswith("# TYPE sluicegate_")}
    assert "sluicegate_edge_spool_records" in families
    assert "sluicegate_ready" in families
    assert not {
        name for name in families if name.split("_")[1] in ("budget", "pricing", "audit", "analytics", "simulator")
    }
