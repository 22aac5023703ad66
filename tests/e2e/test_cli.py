"""The commands of `sluicegate` against an installation that runs, as a user types them."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from tests.fixtures.up import SLUICEGATE, Up, running
from tests.fixtures.waiting import until


class Shell:
    """Runs `sluicegate …` on one data directory."""

    def __init__(self, up: Up, home: Path) -> None:
        self._up, self._home = up, home

    async def __call__(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            str(SLUICEGATE), *arguments, "--data-dir", str(self._up.data_dir),
            env={"PATH": os.environ["PATH"], "HOME": str(self._home)},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate(given.encode())
        return process.returncode or 0, out.decode(), err.decode()

    async def ok(self, *arguments: str, given: str = "") -> str:
        """Standard output of a command that must succeed."""
        code, out, err = await self(*arguments, given=given)
        assert code == 0, f"{arguments} → {code}\n{out}\n{err}"
        return out

    async def json(self, *arguments: str, given: str = "") -> Any:
        return json.loads(await self.ok(*arguments, "--json", given=given))


async def test_the_commands_of_a_day(tmp_path: Path) -> None:
    async with running(tmp_path) as up:
        shell = Shell(up, tmp_path)
        await _it_is_well(shell)
        await _the_file_comes_back_as_it_is(shell)
        await _a_job_finds_drift_and_tells_no_secret(shell)
        await _a_file_for_anthropic_stays_with_the_simulator(shell, up)
        await _keys_live_and_die(shell, up)
        await _traffic_is_counted(shell, up)
        await _claude_code_is_connected(shell, up, tmp_path)
        await _the_record_is_intact(shell)
        await _the_ledger_is_sound(shell)
        await _helm_test_finds_a_cost(up)


async def _it_is_well(shell: Shell) -> None:
    found = await shell.json("status")
    assert {process["state"] for process in found["processes"]} == {"ready"}
    assert "organisation at revision" in await shell.ok("status")
    findings = await shell.json("doctor")
    assert not [finding for finding in findings if finding["level"] == "fail"]
    assert {"broker sync mode", "clock against broker", "clock against console", "credential of anthropic"} <= {
        finding["check"] for finding in findings
    }


async def _the_file_comes_back_as_it_is(shell: Shell) -> None:
    text = await shell.ok("get", "org", "-o", "yaml")
    assert "nothing to change" in await shell.ok("apply", "-f", "-", given=text)
    more = text.replace("limit_usd: 50", "limit_usd: 60")
    assert more != text
    changes = (await shell.json("apply", "-f", "-", "--dry-run", given=more))["changes"]
    assert [(change["action"], change["kind"], change["path"]) for change in changes] == [
        ("change", "team", "default/default")
    ]
    assert "~ change" in await shell.ok("apply", "-f", "-", given=more)
    code, _, err = await shell("apply", "-f", "-", given="customers: [{id: a, budgest: []}]")
    assert code == 1
    assert err.startswith("Error: ")
    assert "budgest" in err
    assert "$60 a month" in await shell.ok("get", "teams")
    assert "$60.00" in await shell.ok("get", "budgets")


async def _a_job_finds_drift_and_tells_no_secret(shell: Shell) -> None:
    """As the Helm chart has it done."""
    text = await shell.ok("get", "org", "-o", "yaml")
    check = ("apply", "-f", "-", "--dry-run", "--exit-code", "--wait-seconds", "10")
    more = text + "\n- {id: jobs, teams: [{id: jobs, keys: [{id: jobs}]}]}\n"
    assert (await shell(*check, given=text))[0] == 0
    assert (await shell(*check, given=more))[0] == 3
    said = await shell.ok("apply", "-f", "-", "--no-secrets", given=more)
    assert "jobs/jobs/jobs is new" in said
    assert "vk-" not in said
    assert (await shell(*check, given=more))[0] == 0
    await shell.ok("apply", "-f", "-", given=text)


async def _a_file_for_anthropic_stays_with_the_simulator(shell: Shell, up: Up) -> None:
    """Without a key a prompt must not leave this machine because somebody applied the file of tomorrow."""
    text = await shell.ok("get", "org", "-o", "yaml")
    before = await shell.json("get", "providers")
    simulator = before[0]["base_url"]
    said = await shell.ok("apply", "-f", "-", given=text.replace(simulator, "https://api.anthropic.com"))
    assert "stays with the simulator" in said
    assert await shell.json("get", "providers") == before


async def _keys_live_and_die(shell: Shell, up: Up) -> None:
    made = await shell.json("keys", "create", "ci", "--team", "default/default", "--day-usd", "0.5", "--tag", "a=b")
    assert made["tags"] == {"a": "b"}
    assert made["secret"].startswith("vk-")
    fresh = await shell.json("keys", "rotate", "ci", "--overlap-seconds", "60")
    assert fresh["secret"] != made["secret"]
    assert made["secret"] not in await shell.ok("keys", "list")
    one = await shell.json("simulate", "-n", "1", "--mix", "whole=1", "--key", made["secret"])
    two = await shell.json("simulate", "-n", "1", "--mix", "whole=1", "--key", fresh["secret"])
    assert one["results"] == two["results"] == {"ok": 1}
    assert "is revoked" in await shell.ok("keys", "revoke", "ci")

    async def refused() -> bool:
        after = await shell.json("simulate", "-n", "1", "--mix", "whole=1", "--key", fresh["secret"])
        return bool(after["statuses"] == {"401": 1})

    await until(refused, what="the refusal of a revoked key")
    code, _, err = await shell("keys", "revoke", "nobody")
    assert code == 1
    assert "nobody" in err


async def _traffic_is_counted(shell: Shell, up: Up) -> None:
    found = await shell.json("simulate", "-n", "20", "-c", "4", "--mix", "stream=3,whole=1")
    assert found["results"] == {"ok": 20}
    lines = len(up.bill.read_text().splitlines())

    async def counted() -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = await shell.json("requests", "--limit", "1000")
        asked = [item for item in items if item["attempts"]]
        return items if len(asked) == lines and all(item["priced"] for item in asked) else []

    items = await until(counted, 20, "every request in the log, priced")
    usage = await shell.json("usage", "--group-by", "key")
    assert sum(item["cost_nano_usd"] for item in usage["items"]) == sum(item["cost_nano_usd"] for item in items)
    assert usage["totals"]["cost_nano_usd"] > 0
    assert "total" in await shell.ok("usage", "--group-by", "team,model")
    assert (await shell.ok("usage", "--format", "csv")).count("\n") >= 2
    story = await shell.json("requests", items[0]["request_id"])
    assert story["request"]["request_id"] == items[0]["request_id"]
    assert items[0]["request_id"] in await shell.ok("requests", items[0]["request_id"])


async def _claude_code_is_connected(shell: Shell, up: Up, home: Path) -> None:
    await shell.ok("connect", "--write")
    env = json.loads((home / ".claude" / "settings.json").read_text())["env"]
    assert (env["ANTHROPIC_BASE_URL"], env["ANTHROPIC_AUTH_TOKEN"]) == (up.base_url, up.first_key)


async def _the_record_is_intact(shell: Shell) -> None:
    found = await until(lambda: _with_entries(shell), what="an audit page")
    assert found["intact"]
    code, out, _ = await shell("audit", "verify", "--head", "00" * 32)
    assert code == 1
    assert "THE CHAIN IS BROKEN" in out


async def _the_ledger_is_sound(shell: Shell) -> None:
    found = await shell.json("ledger", "verify")
    assert found["intact"]
    states = {check["name"]: (check["state"], check["said"]) for check in found["checks"]}
    assert {state for state, _ in states.values()} <= {"ok", "left out"}
    assert states["each entry is one row of `usage`, with its amounts"][0] == "ok"
    assert states["the owner's balances are what the ledger leads to"][0] == "ok"
    assert "the ledger is sound" in await shell.ok("ledger", "verify")
    items = await shell.json("requests", "--limit", "1000")
    request_id = next(item["request_id"] for item in items if item["attempts"] and item["cost_nano_usd"])
    rid = (await shell.json("requests", request_id))["attempts"][0]["rid"]
    steps = (await shell.json("ledger", "explain", rid))["steps"]
    assert [steps[0]["kind"], steps[-1]["kind"]] == ["held", "entry"]
    assert steps[-1]["event"]["usage"]["usage"]["rid"] == rid
    assert f"Booked as {rid}:0" in await shell.ok("ledger", "explain", rid)
    code, _, err = await shell("ledger", "explain", "nobody")
    assert code == 1
    assert "nobody" in err


async def _with_entries(shell: Shell) -> dict[str, Any] | None:
    found: dict[str, Any] = await shell.json("audit", "verify")
    return found if found["entries"] > 20 else None


async def _helm_test_finds_a_cost(up: Up) -> None:
    """The chart's own test, as its pod runs it; here the edge has another name for the simulator's key."""
    given = {
        "EDGE_URL": up.edge_url,
        "CONSOLE_URL": up.console_url,
        "SIMULATOR_URL": f"http://127.0.0.1:{up.ports['http']['simulator']}",
        "SIMULATOR_CREDENTIAL": "env:ANTHROPIC_API_KEY",
        "ADMIN_TOKEN": up.admin_token,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "helm/sluicegate/files/request.py", env={"PATH": os.environ["PATH"], **given},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert re.fullmatch(r"req_\w+: \$ 0\.0\d+\n", said.decode())
    left = await asyncio.to_thread(up.api.all, "/api/v1/customers")
    assert "helm-test" not in {customer["id"] for customer in left}
