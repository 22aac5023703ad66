"""Claude Code's settings for this gateway, and how they are merged into a file that is somebody else's.

Why each variable is there: docs of the client contract, section 2.3 and item 34.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from services.cli.errors import Trouble

Settings = dict[str, Any]

HAIKU = "claude-haiku-5-5"
CI_RETRIES = "3"
PROVIDER_SWITCHES = ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")


def variables(
    base_url: str, key: str, haiku: str = HAIKU, *, ci: bool = False, streams_only: bool = False
) -> dict[str, str]:
    """The environment that Claude Code needs.

    haiku: without it background calls run on the main model. ci: gives up after three retries. streams_only: a broken
    stream is not sent again as a whole.
    """
    found = {
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_AUTH_TOKEN": key,
        "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",  # who asks and why: main, subagent, background; and the prompt's id
    }
    if haiku:
        found["ANTHROPIC_DEFAULT_HAIKU_MODEL"] = haiku
    if ci:
        found["CLAUDE_CODE_MAX_RETRIES"] = CI_RETRIES
    if streams_only:
        found["CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK"] = "1"
    return found


def parse(text: str, name: str) -> Settings:
    """Raises Trouble: what we do not understand we do not rewrite."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise Trouble(
            f"{name} is not JSON (line {error.lineno}: {error.msg}); mend it or add the lines by hand"
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("env", {}), dict):
        raise Trouble(f"{name} does not hold an object with an object `env`; mend it or add the lines by hand")
    return found


def merged(settings: Settings, wanted: Mapping[str, str]) -> Settings:
    """The settings with these variables in `env`; everything else, and every order, stays."""
    return settings | {"env": dict(settings.get("env", {})) | dict(wanted)}


def warnings(settings: Settings) -> list[str]:
    """What in the settings stands in the way of the gateway."""
    environ = settings.get("env", {})
    found = []
    if environ.get("ANTHROPIC_API_KEY"):
        found.append("env.ANTHROPIC_API_KEY is set too: Claude Code sends both credentials; remove it")
    if settings.get("apiKeyHelper"):
        found.append("apiKeyHelper is set: its output is sent in place of the virtual key; remove it")
    found += [
        f"env.{name} is set: Claude Code then leaves ANTHROPIC_BASE_URL aside; remove it"
        for name in PROVIDER_SWITCHES
        if environ.get(name) not in (None, "", "0")
    ]
    return found


def dump(settings: Settings) -> str:
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def shell_lines(wanted: Mapping[str, str], shell: str) -> str:
    """Lines for `eval` in bash (and zsh, sh) or for `source` in fish."""
    form = "set -gx {} {};" if shell == "fish" else "export {}={}"
    return "\n".join(form.format(name, shlex.quote(value)) for name, value in wanted.items())
