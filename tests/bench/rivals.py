"""Other gateways, each in a virtual environment of its own below a folder of the user's choice, never in ours.

`python -m tests.bench rivals DIR` makes them from `rivals.txt`; `python -m tests.bench --rivals DIR` measures them.
"""

import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.bench.processes import Gateway, alone, process, told
from tests.bench.requests import MODEL
from tests.fixtures.ports import free_port

PINNED = Path(__file__).with_name("rivals.txt")
START_SECONDS = 90.0
ENVIRON = {"PATH": "/usr/bin:/bin", "ANTHROPIC_API_KEY": "sk-bench"}

Start = Callable[[Path, Path, int], AbstractContextManager[Gateway]]
"""(its virtual environment, a folder to write into, the provider's port)"""


class Absent(Exception):
    """It cannot be measured here; says why, in words for the results."""


def requirements() -> dict[str, str]:
    """Name to pinned requirement."""
    lines = [line.strip() for line in PINNED.read_text().splitlines()]
    return {re.split(r"[\[=]", line)[0]: line for line in lines if line and not line.startswith("#")}


def install(folder: Path) -> dict[str, str]:
    """Make every environment anew that is not there as pinned. Returns what did not install, with the reason."""
    failed = {}
    for name, requirement in requirements().items():
        home, note = folder / name, folder / f"{name}.txt"
        if note.exists() and note.read_text() == requirement:
            continue
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        note.write_text(requirement if done.returncode == 0 else f"{requirement} did not install")
        if done.returncode:
            failed[name] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return failed


def environment(folder: Path | None, name: str) -> Path:
    """Where it is installed as pinned. Raises Absent."""
    if folder is None:
        raise Absent("not asked for: python -m tests.bench rivals DIR, then --rivals DIR")
    note, requirement = folder / f"{name}.txt", requirements()[name]
    found = note.read_text() if note.exists() else f"{requirement} is not installed in the folder given by --rivals"
    if found != requirement:
        raise Absent(found)
    return folder / name


LITELLM_KEY = "sk-" + hashlib.sha256(b"bench").hexdigest()  # it refuses to start with a weak one
LITELLM = {
    "model_list": [
        {"model_name": MODEL, "litellm_params": {"model": f"anthropic/{MODEL}", "api_base": "", "api_key": "sk-bench"}}
    ]
}


@contextmanager
def litellm(home: Path, folder: Path, provider_port: int) -> Iterator[Gateway]:
    """The proxy with one worker; a master key, no database, no budgets, its log at ERROR."""
    config, port = folder / "litellm.yaml", free_port()
    config.write_text(json.dumps(LITELLM).replace('"api_base": ""', f'"api_base": "http://127.0.0.1:{provider_port}"'))
    command = (home / "bin/litellm", "--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", 1)
    # its own table of prices, else it asks for one over the network
    environ = {"LITELLM_MASTER_KEY": LITELLM_KEY, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    log = folder / "litellm.log"
    with process(*map(str, command), environ=ENVIRON | environ | {"HOME": str(folder)}, out=log, log=log) as running:
        _listening(running, port, log)
        what = "POST /v1/messages with the master key; no database, no budgets, log at ERROR, one worker"
        yield Gateway(name="litellm", what=what, port=port, processes=alone("litellm", running), key=LITELLM_KEY)


def _listening(running: "subprocess.Popen[str]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise Absent(f"did not start: {log.read_text().strip()[-300:]}")


TENSORZERO = """
import sys
from tensorzero.tensorzero import _start_http_gateway
gateway = _start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print(gateway.base_url, flush=True)
sys.stdin.read()
"""
TENSORZERO_CONFIG = """
[gateway]
observability.enabled = false
[models."{model}"]
routing = ["anthropic"]
[models."{model}".providers.anthropic]
type = "anthropic"
model_name = "{model}"
api_base = "http://127.0.0.1:{port}/v1/"
"""


@contextmanager
def tensorzero(home: Path, folder: Path, provider_port: int) -> Iterator[Gateway]:
    """The HTTP gateway that its wheel embeds, which speaks OpenAI's format only; no auth, no database, logging off."""
    config = folder / "tensorzero.toml"
    config.write_text(TENSORZERO_CONFIG.format(model=MODEL, port=provider_port))
    command = (home / "bin/python", "-c", TENSORZERO, config)
    log = folder / "tensorzero.log"
    environ = ENVIRON | {"HOME": str(folder), "RUST_LOG": "error"}
    with process(*map(str, command), environ=environ, log=log) as running:
        url = _url(running, log)
        what = "POST /openai/v1/chat/completions, translated to Anthropic's format; no auth, no database, logging off"
        yield Gateway(
            name="tensorzero",
            what=what,
            port=int(url.split(":")[2].split("/")[0]),
            processes=alone("tensorzero", running),
            shape="tensorzero",
        )


def _url(running: "subprocess.Popen[str]", log: Path) -> str:
    """What it prints once it listens; warnings come on the same channel."""
    try:
        while not (line := told(running)).startswith("http://"):
            pass
    except RuntimeError as error:
        raise Absent(f"did not start: {log.read_text().strip()[-300:] or error}") from error
    return line


STARTS: dict[str, Start] = {"tensorzero": tensorzero, "litellm": litellm}
