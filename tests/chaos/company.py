"""Who is governed: hard budgets everywhere, one of them so small that the traffic runs into it."""

from pathlib import Path

import yaml

USD = 1_000_000_000
WIDE, TIGHT = "vk-chaos-wide", "vk-chaos-tight"
TEAM_USD, WIDE_USD = 1_000.0, 500.0
KEYS = (WIDE, WIDE, WIDE, TIGHT)
"""Keys take turns in the traffic: one call in four meets the small budget."""


def organisation(folder: Path, provider_url: str = "https://api.anthropic.com", tight_usd: float = 0.6) -> Path:
    """The file for `sluicegate up --org`. provider_url: Anthropic's means the simulator."""
    document = {
        "contact": "platform@acme.example",
        "providers": [
            {
                "name": "anthropic",
                "kind": "anthropic",
                "base_url": provider_url,
                "credential": "env:ANTHROPIC_API_KEY",
            }
        ],
        "customers": [
            {
                "id": "acme",
                "teams": [
                    {
                        "id": "platform",
                        "budgets": [{"limit_usd": TEAM_USD, "period": "total"}],
                        "keys": [_key("wide", WIDE, WIDE_USD), _key("tight", TIGHT, tight_usd)],
                    }
                ],
            }
        ],
    }
    path = folder / "org.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def _key(name: str, secret: str, limit_usd: float) -> dict[str, object]:
    return {"id": name, "secret": secret, "budgets": [{"limit_usd": limit_usd, "period": "total"}]}
