"""Claude Code through the whole of Sluicegate, with the simulator as provider and its bill as the oracle."""

import asyncio
from pathlib import Path

import pytest
import yaml

from tests.fixtures.money import bill_lines, bill_nano_usd, budgets, money_of_rows, rows, settled
from tests.fixtures.up import Up, running
from tests.real_client.claude import Turn, ask

KEY = "vk-real-client"
TIERS = ("provider_config", "key", "team", "customer")


def organisation(tmp_path: Path, capped: str = "", limit_usd: float = 0.5) -> Path:
    """Every tier has a budget with room, but the capped one."""

    def budget(tier: str) -> list[dict[str, object]]:
        return [{"limit_usd": limit_usd if tier == capped else 100, "period": "month"}]

    key = {
        "id": "dev-asha",
        "owner": "asha@acme.example",
        "secret": KEY,
        "budgets": budget("key"),
        "providers": [{"name": "anthropic", "budgets": budget("provider_config")}],
    }
    team = {"id": "platform", "budgets": budget("team"), "keys": [key]}
    document = {
        "contact": "platform@acme.example",
        "providers": [
            {
                "name": "anthropic",
                "kind": "anthropic",
                "base_url": "https://api.anthropic.com",
                "credential": "env:ANTHROPIC_API_KEY",
            }
        ],
        "customers": [{"id": "acme", "budgets": budget("customer"), "teams": [team]}],
    }
    path = tmp_path / "org.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


async def claude(up: Up, version: str, home: Path, prompt: str, *more: str, **environ: str) -> Turn:
    return await asyncio.to_thread(ask, version, home, up.base_url, KEY, prompt, *more, **environ)


async def test_several_turns_with_tools_end_well_and_the_books_agree(tmp_path: Path, home: Path, version: str) -> None:
    async with running(tmp_path, org=organisation(tmp_path)) as up:
        turn = await claude(up, version, home, "Write a file then read it")
        assert turn.exit_code == 0, (turn.result, turn.stderr)
        await settled(up)
        bill = bill_lines(up.bill)
        assert len(bill) == 4
        assert money_of_rows(up) == bill_nano_usd(up.bill) > 0
        assert {item["spent_nano_usd"] for item in budgets(up)} == {bill_nano_usd(up.bill)}
        assert turn.result["total_cost_usd"] == pytest.approx(bill_nano_usd(up.bill) / 1e9, abs=1e-9)
        for row in rows(up, "SELECT * FROM usage"):
            assert (row["key"], row["team"], row["customer"]) == ("dev-asha", "platform", "acme")
            assert row["owner"] == "asha@acme.example"
            assert row["session_id"] == turn.result["session_id"]
            assert row["client_version"].startswith(version) or version in row["client_version"]
            assert not row["estimated"]


async def test_a_conversation_goes_on_in_the_same_session(tmp_path: Path, home: Path, version: str) -> None:
    async with running(tmp_path, org=organisation(tmp_path)) as up:
        first = await claude(up, version, home, "Say hello")
        second = await claude(up, version, home, "And again", "--continue")
        assert (first.exit_code, second.exit_code) == (0, 0)
        await settled(up)
        assert rows(up, "SELECT DISTINCT session_id FROM usage") == [{"session_id": first.result["session_id"]}]
        assert money_of_rows(up) == bill_nano_usd(up.bill)


@pytest.mark.parametrize("tier", TIERS)
async def test_at_a_cap_the_next_call_is_refused_by_that_tier(
    tmp_path: Path, home: Path, version: str, tier: str
) -> None:
    async with running(tmp_path, org=organisation(tmp_path, capped=tier)) as up:
        first = await claude(up, version, home, "[[sim: cost_usd=0.45]] Say hello")
        assert first.exit_code == 0, first.result
        await settled(up)
        before = bill_lines(up.bill)
        assert before

        second = await claude(up, version, home, "Say hello once more")
        assert second.exit_code == 1
        assert second.seconds < 10
        names = {"provider_config": "anthropic", "key": "dev-asha", "team": "platform", "customer": "acme"}
        for word in (names[tier], "$0.50", "platform@acme.example"):
            assert word in second.text, second.text
        await asyncio.to_thread(_one_refusal, up, tier)
        assert bill_lines(up.bill) == before


def _one_refusal(up: Up, tier: str) -> None:
    refused = rows(up, "SELECT status, reason, budget_id FROM requests WHERE verdict = 'refused'")
    assert len(refused) == 1, refused
    assert refused[0]["status"] == 429
    assert refused[0]["budget_id"].startswith(f"{tier}:")


async def test_a_revoked_key_is_told_so_at_once(tmp_path: Path, home: Path, version: str) -> None:
    async with running(tmp_path, org=organisation(tmp_path)) as up:
        await asyncio.to_thread(up.api.post, "/api/v1/keys/dev-asha/revoke")
        turn = await claude(up, version, home, "Say hello")
        assert turn.exit_code == 1
        assert turn.result["api_error_status"] == 401
        assert turn.seconds < 10
        assert bill_lines(up.bill) == []
