"""What the environment can set, as PRICING_<FIELD> and PRICING_BUS_<FIELD>."""

from pathlib import Path

import msgspec

from shared.bus import BusSettings

PREFIX = "PRICING"
PACKAGED_BOOK = Path(__file__).with_name("book.json")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """http_port: 0 takes any free one. book_file: the price book; by default the one of this release.

    window_records: records published before the first of them must be acknowledged.
    config_wait_seconds: how long a record waits for the revision of CONFIG it was admitted under.
    """

    http_host: str = "127.0.0.1"
    http_port: int = 0
    ready_file: str = ""
    log_level: str = "info"
    bus: BusSettings = BusSettings()
    book_file: str = str(PACKAGED_BOOK)
    window_records: int = 64
    config_wait_seconds: float = 5.0
