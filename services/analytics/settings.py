"""What can be set, by `ANALYTICS_…`."""

from typing import Annotated, Literal

import msgspec

from shared.bus import BusSettings

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """clickhouse_url: `http(s)://user@host:port`, empty embeds the engine in this process, on data_dir.

    engine, cluster: of the tables; a cluster makes every statement of the migrations ON CLUSTER.
    flush_interval_ms: least time between two inserts into one table under load; an idle table is written at once.
    log_check_seconds: how often to see whether a log was made anew while it is followed.
    facade_*: the ClickHouse HTTP port of the embedded engine;
    query_*: limits of one query through that port, however it is written.
    """

    bus: BusSettings = BusSettings()
    http_host: str = "127.0.0.1"
    http_port: Port = 0
    ready_file: str = ""
    log_level: str = "info"

    clickhouse_url: str = ""
    clickhouse_user: str = ""
    clickhouse_password: str = ""
    data_dir: str = ".sluicegate/clickhouse"
    database: Name = "sluicegate"
    cluster: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.{}-]*$")] = ""
    engine: Literal["MergeTree", "ReplicatedMergeTree", "SharedMergeTree"] = "MergeTree"
    batch_rows: Positive = 10_000
    flush_interval_ms: Positive = 1000
    log_check_seconds: Positive = 10

    facade_host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    facade_port: Port = 8123
    query_concurrency: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    query_max_seconds: Positive = 30
    query_max_memory_bytes: Positive = 512 << 20
    query_max_result_bytes: Positive = 256 << 20
