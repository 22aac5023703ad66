"""A private Sluicegate with an organisation made for the checklist, and the played provider as its only one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from services.cli.conformance.books import Books
from services.cli.conformance.gateway import Gateway, message
from services.cli.conformance.provider import Upstream, message_json, plain, says
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Facts, Keys
from services.cli.core import connect
from services.cli.supervisor import private

PROVIDER_SECRET = "sk-conformance-provider"  # noqa: S105  # of a provider that is played here
CONTACT = "#llm-budget"
HEARTBEAT_SECONDS = 0.5
STORM_REQUESTS = 5
POLICY_REQUESTS = 10  # fewer than the denials that must not count
KEYS = Keys(**{name: f"vk-conformance-{name}" for name in Keys.__struct_fields__})


def organisation(provider_url: str) -> dict[str, object]:
    """One key for each role in the checklist."""
    keys = [
        _key("main", 1000),
        _key("spent", 0.10),
        _key("warned", 10),
        _key("revoked", 1),
        _key("limited", 1000, rate_limits={"concurrent_requests": 1}),
        _key("policy", 1000, models=["claude-haiku-*"], rate_limits={"requests_per_minute": POLICY_REQUESTS}),
        _key("storm", 1000, rate_limits={"requests_per_minute": STORM_REQUESTS}),
    ]
    provider = {"name": "played", "kind": "anthropic", "base_url": provider_url, "credential": "env:ANTHROPIC_API_KEY"}
    teams = [{"id": "conformance", "keys": keys}]
    return {"contact": CONTACT, "providers": [provider], "customers": [{"id": "conformance", "teams": teams}]}


def _key(name: str, limit_usd: float, **more: object) -> dict[str, object]:
    budget = {"limit_usd": limit_usd, "period": "month", "queue_seconds": 0}
    return {"id": name, "secret": getattr(KEYS, name), "budgets": [budget], **more}


@asynccontextmanager
async def gateway(
    folder: Path, provider: Upstream, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[tuple[Gateway, Facts, Books]]:
    """Running, with each key in its role. Its pings come sooner than a real one's, so that silence is short."""
    path = folder / "org.yaml"
    path.write_text(yaml.safe_dump(organisation(provider.url)))
    environ = {
        "ANTHROPIC_API_KEY": PROVIDER_SECRET,
        "SLUICEGATE_EDGE_HEARTBEAT_SECONDS": str(heartbeat_seconds),
    }
    async with private.started(folder, path, environ) as up:
        made, books = Gateway(up.base_url), Books(up.api)
        await _spend(made, provider, KEYS.spent, 0.113)
        await _spend(made, provider, KEYS.warned, 7.81)
        await books.revoke("revoked")
        facts = Facts(
            keys=KEYS,
            storm_requests=STORM_REQUESTS,
            heartbeat_seconds=heartbeat_seconds,
            logs=(up.data_dir,),
            snippet=connect.dump({"env": connect.variables(made.base_url, KEYS.main, ci=True)}),
            provider_secret=PROVIDER_SECRET,
        )
        yield made, facts, books


async def _spend(made: Gateway, provider: Upstream, key: str, usd: float) -> None:
    """What the provider reports counts, above the hold too: Sonnet 5.5 at 2 dollars per million of input."""
    usage = {"input_tokens": int(usd * 500_000), "output_tokens": 0}
    provider.script = says(plain(message_json(usage=usage)))
    answer = await made.post(key, message(f"spend {usd}"))
    expect(answer.status == 200, f"the key {key} cannot be put into its role: {answer.status} {answer.body[:200]!r}")
