"""What the supervisor starts: a service of ours, or the broker. Each knows its command and how it tells it is ready."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from services.cli.errors import Trouble
from services.cli.supervisor.ports import LOOPBACK


class Program(Protocol):
    """Prepared and asked for its command and environment before each start, then polled until it is ready."""

    @property
    def name(self) -> str: ...
    def prepare(self) -> None: ...
    def command(self) -> list[str]: ...
    def environ(self) -> dict[str, str]: ...
    def ready(self, pid: int) -> dict[str, int] | None:
        """The ports it listens on by name, or None while the process `pid` is not ready."""

    def keep(self, ports: Mapping[str, int]) -> None:
        """Listen on these ports at every later start."""


class Service:
    """A process `python -m services.<kind>` that writes its pid and ports into its ready file.

    name: its kind, with a number from the second of a kind on. port_variables: name of a port in the ready file to the
    variable that fixes it.
    """

    def __init__(
        self, name: str, kind: str, environ: dict[str, str], ready_file: Path, port_variables: Mapping[str, str]
    ) -> None:
        self.name = name
        self.kind = kind
        self._environ = dict(environ)
        self._ready_file = ready_file
        self._port_variables = port_variables

    def prepare(self) -> None:
        self._ready_file.unlink(missing_ok=True)  # after a reboot an old pid may come again

    def command(self) -> list[str]:
        # -P: a folder called `services` where the user happens to stand is not ours
        return [sys.executable, "-P", "-m", f"services.{self.kind}"]

    def environ(self) -> dict[str, str]:
        return dict(self._environ)

    def set(self, variables: Mapping[str, str]) -> None:
        """From the next start on."""
        self._environ |= variables

    def ready(self, pid: int) -> dict[str, int] | None:
        try:
            told = json.loads(self._ready_file.read_text())
        except FileNotFoundError:
            return None
        return dict(told["ports"]) if told["pid"] == pid else None

    def keep(self, ports: Mapping[str, int]) -> None:
        for name, port in ports.items():
            if variable := self._port_variables.get(name):
                self._environ[variable] = str(port)


class Broker:
    """A nats-server with JetStream that is on disk before it acknowledges; loopback only."""

    name = "nats"

    def __init__(self, folder: Path, port: int, environ: dict[str, str]) -> None:
        self._folder, self._config = folder, folder / "nats.conf"
        self._port, self._monitor_port = port or -1, -1  # -1: the broker takes any free one
        self._environ = environ

    def prepare(self) -> None:
        told = self._folder / "ports"
        told.mkdir(exist_ok=True)
        for stale in told.iterdir():
            stale.unlink()
        self._config.write_text(
            f'listen: "{LOOPBACK}:{self._port}"\n'
            f'http: "{LOOPBACK}:{self._monitor_port}"\n'
            f"ports_file_dir: {json.dumps(str(told))}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self._folder / 'jetstream'))}, sync_interval: always }}\n"
        )

    def command(self) -> list[str]:
        return [nats_server(), "-c", str(self._config)]

    def environ(self) -> dict[str, str]:
        return self._environ

    def ready(self, pid: int) -> dict[str, int] | None:
        try:
            told = json.loads((self._folder / "ports" / f"nats-server_{pid}.ports").read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # the broker does not write it atomically
            return None
        return {"nats": _port(told["nats"][0]), "monitor": _port(told["monitoring"][0])}

    def keep(self, ports: Mapping[str, int]) -> None:
        self._port, self._monitor_port = ports["nats"], ports["monitor"]


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, url
    return port


def nats_server() -> str:
    """The broker that was installed beside this Python, else one on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Trouble("nats-server is not installed beside this Python; run `make install`")
    return found
