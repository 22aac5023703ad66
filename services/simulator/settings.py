"""Settings of the simulator, read from `SIMULATOR_…`."""

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """bill_file: where the provider's bill goes; "" puts it at DATA_DIR/bill.jsonl.

    ttft_ms, chunk_ms: how long an answer without directives takes to its first event and between events.
    """

    http_host: str = "127.0.0.1"
    http_port: int = 0
    data_dir: str = ".sluicegate/simulator"
    bill_file: str = ""
    ready_file: str = ""
    log_level: str = "info"
    ttft_ms: int = 0
    chunk_ms: int = 0
