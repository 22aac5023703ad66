"""What audit can be told; environment prefix AUDIT_."""

import msgspec

from shared.bus import BusSettings


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """chain: the name of the one that this process writes, of all shards. flush_interval_ms: how long entries wait for company."""

    bus: BusSettings = BusSettings()
    http_host: str = "127.0.0.1"
    http_port: int = 0
    ready_file: str = ""
    log_level: str = "info"
    chain: str = "0"
    flush_interval_ms: int = 250
    flush_entries: int = 500
