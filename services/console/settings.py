"""What the console can be told; environment prefix CONSOLE_."""

import msgspec

from shared.bus import BusSettings


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """admin_token_file: read when admin_token is empty; without either the console refuses to start.

    clickhouse_url: ClickHouse's HTTP port, a server's or analytics' façade. web_dir: the page's files, "" for our own.
    secure_cookies: send the session cookie over HTTPS alone; set it wherever TLS ends before the console.
    edge_url: where clients find the gateway, for the page's first steps.
    """

    bus: BusSettings = BusSettings()
    http_host: str = "127.0.0.1"
    http_port: int = 8081
    ready_file: str = ""
    log_level: str = "info"
    admin_token: str = ""
    admin_token_file: str = ""
    clickhouse_url: str = "http://127.0.0.1:8123"
    clickhouse_database: str = "sluicegate"
    clickhouse_user: str = ""
    clickhouse_password: str = ""
    query_timeout_seconds: int = 30
    session_hours: int = 12
    secure_cookies: bool = False
    web_dir: str = ""
    edge_url: str = ""
    body_bytes: int = 32 * 1024 * 1024
