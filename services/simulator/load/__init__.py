"""Traffic of the kind a team makes, against a gateway: `simulate(...)`, for demos, benchmarks and kill tests."""

from services.simulator.load.mix import KINDS, MIX, Kind
from services.simulator.load.run import Progress, Target, simulate
from services.simulator.load.summary import Done, Summary

__all__ = ["KINDS", "MIX", "Done", "Kind", "Progress", "Summary", "Target", "simulate"]
