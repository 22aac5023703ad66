"""The one way to talk on NATS JetStream; the broker pitfalls of docs/ledger.md are handled here, once."""

from shared.bus.connection import Bus, Record, open_bus
from shared.bus.follow import AT_LEISURE_SECONDS, Stored
from shared.bus.settings import BusSettings
from shared.bus.streams import provision

__all__ = ["AT_LEISURE_SECONDS", "Bus", "BusSettings", "Record", "Stored", "open_bus", "provision"]
