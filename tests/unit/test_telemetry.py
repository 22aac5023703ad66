"""What a process tells of itself."""

import subprocess
import sys
from typing import cast

from prometheus_client import REGISTRY

from services.budget.core.state import State
from services.budget.stores import Ledger
from services.edge.handlers import report
from shared.bus import Bus
from shared.errors import Unavailable


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


class Broker:
    """Takes a record at the third try."""

    def __init__(self) -> None:
        self.tries = 0

    async def append(self, *_: object, **__: object) -> int:
        self.tries += 1
        if self.tries < 3:
            raise Unavailable("bus")
        return 1


async def test_each_record_that_is_sent_to_the_ledger_again_counts() -> None:
    before = REGISTRY.get_sample_value("sluicegate_budget_commit_retries_total") or 0
    await Ledger(cast(Bus, Broker()), "0").append(State(), [], 1)
    assert REGISTRY.get_sample_value("sluicegate_budget_commit_retries_total") == before + 2


def test_providers_beyond_a_few_hundred_are_counted_together() -> None:
    for number in range(600):
        report.attempted(f"provider-{number}", "ok")
    attempts = [
        sample.labels["provider"]
        for metric in REGISTRY.collect()
        if metric.name == "sluicegate_edge_attempts"
        for sample in metric.samples
        if sample.name.endswith("_total")
    ]
    assert len(attempts) <= 501
    together = REGISTRY.get_sample_value("sluicegate_edge_attempts_total", {"provider": "others", "outcome": "ok"})
    assert together is not None and together >= 100
