"""What `up` says: progress on standard error, the result on standard output."""

import time

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All that a newcomer needs. traffic: one line per destination. made: secrets by key, known only now."""

    base_url: str
    first_key: str
    first_key_name: str
    console_url: str
    clickhouse_url: str
    admin_token: str
    traffic: list[str]
    made: dict[str, str]
    data_dir: str
    logs: str


class Words:
    """Lines for a person; with a spinner where there is a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self._out = Console(highlight=False, soft_wrap=True)
        self._status: Status | None = None

    def waiting(self, text: str) -> None:
        """What is being waited for now; "" for nothing."""
        if not self._err.is_terminal:
            return
        if self._status is None and text:
            self._status = self._err.status(escape(text))
            self._status.start()
        elif self._status is not None and text:
            self._status.update(escape(text))
        elif self._status is not None:
            self._status.stop()
            self._status = None

    def line(self, text: str) -> None:
        self._err.print(escape(text))

    def started(self, name: str, ports: dict[str, int]) -> None:
        where = ", ".join(f"{what} {port}" for what, port in ports.items())
        self.line(f"  {name:<10} ready after {time.monotonic() - self._began:4.1f} s  ({where})")

    def ready(self, summary: Summary) -> None:
        self.waiting("")
        took = time.monotonic() - self._began
        self._out.print(f"\nSluicegate is ready ({took:.1f} s). For Claude Code:\n", style="bold")
        self._out.print(f"  export ANTHROPIC_BASE_URL={summary.base_url}")
        key = summary.first_key or "<a virtual key; make one with `sluicegate keys create`>"
        self._out.print(escape(f"  export ANTHROPIC_AUTH_TOKEN={key}\n"))
        rows = [
            ("console", summary.console_url),
            ("admin token", summary.admin_token),
            (
                "first key",
                f"{key}  ({summary.first_key_name or 'accepted no more'})" if summary.first_key else "not known here",
            ),
            *(("traffic", line) for line in summary.traffic),
            ("ClickHouse", summary.clickhouse_url),
            ("data", summary.data_dir),
            ("logs", summary.logs),
        ]
        for name, value in rows:
            self._out.print(escape(f"  {name:<12} {value}"))
        if summary.made:
            self._out.print("\n  New virtual keys; their secrets are shown this once:")
        for name, secret in summary.made.items():
            self._out.print(escape(f"    {name}  {secret}"))
        self._out.print("\nCtrl-C stops everything; nothing is lost.", style="dim")
