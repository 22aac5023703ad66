"""`docker compose up`, then everything that a newcomer and an impatient administrator do."""

import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from services.cli.errors import Trouble
from services.simulator.load import Target, simulate
from tests.containers.docker import Trial, docker
from tests.fixtures.waiting import until

SERVICES = ("edge", "budget", "pricing", "audit", "analytics", "console", "simulator")
SECONDS = 90.0
BILL = "import urllib.request; print(urllib.request.urlopen('http://simulator:8080/bill').read().decode())"
READY = """
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:9090/readyz").status)
except urllib.error.URLError as error:
    print(error)
"""
PEAK = """
from pathlib import Path
for name in ("memory.peak", "memory/memory.max_usage_in_bytes"):
    if (path := Path("/sys/fs/cgroup") / name).exists():
        print(path.read_text())
"""


class Stream(threading.Thread):
    """A streamed request on a thread of its own. began: once something of the answer is there."""

    def __init__(self, trial: Trial, directives: str, key: str = "vk-trial") -> None:
        super().__init__(daemon=True)
        body = {"model": "claude-haiku-5-5", "max_tokens": 4000, "stream": True}
        body["messages"] = [{"role": "user", "content": "Say hello"}]
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json"}
        self._request = asked(trial, json.dumps(body).encode(), {**headers, "x-simulator": directives})
        self.began = threading.Event()
        self.text = b""
        self.request_id = ""

    def run(self) -> None:
        with urllib.request.urlopen(self._request, timeout=SECONDS) as answer:  # noqa: S310  # ours
            self.request_id = answer.headers["x-sluicegate-request-id"]
            while line := answer.readline():
                self.text += line
                if b"content_block_delta" in line:
                    self.began.set()

    def finish(self) -> bytes:
        self.join(SECONDS)
        assert not self.is_alive(), "it does not end"
        return self.text


def asked(trial: Trial, body: bytes, headers: dict[str, str]) -> urllib.request.Request:
    return urllib.request.Request(trial.messages, body, headers)  # noqa: S310  # ours


def ready(trial: Trial) -> bool:
    return trial.python("edge", READY) == "200"


def bill(trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trial.python("edge", BILL))
    return found


async def recorded(trial: Trial, request_id: str) -> dict[str, Any]:
    """The console's line, once its price is known."""

    def priced() -> list[dict[str, Any]]:
        try:
            lines = trial.api.get("/api/v1/requests", {"limit": 100})["items"]
        except Trouble:
            return []  # the console cannot answer yet
        return [each for each in lines if each["request_id"] == request_id and each["priced"]]

    return (await until(priced, SECONDS, f"the record of {request_id}"))[0]


async def test_a_governed_request_is_answered_and_its_cost_is_in_the_console(trial: Trial) -> None:
    stream = Stream(trial, "output_tokens=500")
    stream.start()
    assert b"event: message_stop" in stream.finish()
    found = await recorded(trial, stream.request_id)
    assert found["key"] == "dev"
    assert found["cost_nano_usd"] == bill(trial)["cost_nano_usd"] > 0
    (budget,) = trial.api.get("/api/v1/budgets")["items"]
    assert budget["spent_nano_usd"] == found["cost_nano_usd"]


def test_who_has_no_key_is_refused(trial: Trial) -> None:
    request = asked(trial, b"{}", {"x-api-key": "vk-nobody", "anthropic-version": "2023-06-01"})
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=10)  # noqa: S310  # ours


async def test_a_stream_ends_well_when_the_edge_is_told_to_stop_and_its_record_arrives_later(trial: Trial) -> None:
    """With the broker away too: what there is to tell is on the spool's volume, and nowhere else."""
    stream = Stream(trial, "chunks=20,chunk_ms=200,output_tokens=400")
    stream.start()
    assert stream.began.wait(SECONDS)
    trial.compose("kill", "nats")
    trial.compose("stop", "edge")
    assert b"event: message_stop" in stream.finish()
    assert trial.inspect("edge")["State"]["ExitCode"] == 0, docker("logs", "--tail", "9", trial.container("edge"))
    trial.compose("rm", "--force", "edge")  # not even the container is the same
    trial.compose("up", "--detach", "--no-build")
    await until(lambda: ready(trial), SECONDS, "the edge")
    found = await recorded(trial, stream.request_id)
    assert found["outcome"] == "ok"
    total = sum(each["cost_nano_usd"] for each in trial.api.get("/api/v1/requests", {"limit": 100})["items"])
    assert total == bill(trial)["cost_nano_usd"]


async def test_the_console_outlives_the_engine(trial: Trial) -> None:
    docker("kill", trial.container("analytics"))
    trial.compose("up", "--detach", "--no-build")
    await until(lambda: ready(trial), SECONDS, "the edge")
    stream = Stream(trial, "output_tokens=50")
    stream.start()
    stream.finish()
    assert (await recorded(trial, stream.request_id))["cost_nano_usd"] > 0


async def test_everything_is_content_with_512_mb_as_a_user_nobody_knows(trial: Trial) -> None:
    target = Target(base_url=trial.messages.removesuffix("/v1/messages"), keys=("vk-trial",))
    await simulate(target, count=300, concurrency=10, seed=1)
    for service in SERVICES:
        found = trial.inspect(service)
        assert found["HostConfig"]["ReadonlyRootfs"], service
        assert found["HostConfig"]["Memory"] == 512 * 1024**2, service
        assert found["Config"]["User"] == trial.user
        assert found["State"]["Running"], service
        assert not found["State"]["OOMKilled"], service
        assert trial.python(service, "import os; print(f'{os.getuid()}:{os.getgid()}')") == trial.user
        print(f"{service}: at most {int(trial.python(service, PEAK)) / 2**20:.0f} MiB")  # noqa: T201  # a figure to report
