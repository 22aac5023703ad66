"""What the environment can set, as BUDGET_<FIELD> and BUDGET_BUS_<FIELD>."""

import msgspec

from shared.bus import BusSettings
from shared.contracts.budget import DEFAULT_SHARD

PREFIX = "BUDGET"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """http_port: 0 takes any free one. shards: the parts of the world that this process may own, separated by commas.

    replica: a name of its own among several processes that may own the same shards: one has each, the others stand by. Without
        a name it is meant to be the only one, and takes its shards at once.
    home_shards: of those, which to take first where nobody has them; empty: all.
    lease_seconds: after so long without a sign of the owner a replica takes over.

    allow_unsynced_broker: start although the broker acknowledges before it writes to disk, so that a power cut loses money.
    absent_seconds: how long a hold may be missing from its edge's inventory before it becomes provisional spend.
    config_wait_seconds: how long a RESERVE waits for the revision of CONFIG it was admitted under.
    group_bytes: how much may go into one record of the ledger; the broker takes 1 MiB.
    snapshot_records: how many records of the ledger lie between two snapshots; snapshot_stop_seconds: what the last one, on a
        clean stop, may take.
    self_check_seconds: how often the whole ledger is checked, beside the owner; 0 never. clickhouse_url: http://…/DATABASE with
        the rows to compare with; empty leaves them out.
    credit_seconds: for how long an edge may admit by itself on money lent to it (`core/leases.py`).
    ack_seconds: how long an edge may take to acknowledge a decision before it is told again.
    """

    http_host: str = "127.0.0.1"
    http_port: int = 0
    ready_file: str = ""
    log_level: str = "info"
    bus: BusSettings = BusSettings()
    shards: str = DEFAULT_SHARD
    replica: str = ""
    home_shards: str = ""
    lease_seconds: float = 1.2
    allow_unsynced_broker: bool = False
    absent_seconds: float = 60.0
    config_wait_seconds: float = 2.0
    group_bytes: int = 400_000
    credit_seconds: int = 300
    ack_seconds: float = 1.0
    snapshot_records: int = 100_000
    snapshot_stop_seconds: float = 3.0
    self_check_seconds: float = 3600.0
    clickhouse_url: str = ""
    clickhouse_user: str = ""
    clickhouse_password: str = ""
