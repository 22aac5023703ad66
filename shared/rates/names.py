"""One model has many spellings; the price book knows one. Purely syntactic, so that every service agrees without a book."""

import re
from functools import lru_cache

_PREFIX = re.compile(
    r"^(?:(?:[a-z]{2,6}\.)?anthropic\.)"
)  # Bedrock: `anthropic.`, `eu.anthropic.`, `global.anthropic.`
_SUFFIX = re.compile(r"(?:\[1m\]|-v\d+(?::\d+k?)?|[@-]20\d{6}|@default|[@-]latest)$")
_OLD_ORDER = re.compile(r"^claude-(\d+(?:-\d+)?)-(opus|sonnet|haiku)$")


@lru_cache(maxsize=4096)  # bounded: clients choose these names
def bare(model: str) -> str:
    """The id without the marks of a cloud: `eu.anthropic.claude-x-v1:0`, `publishers/…/claude-x@20250929`, `claude-x[1m]`.

    A release date stays, written as Anthropic does (`-20250929`).
    """
    name = model.lower().rsplit("/", 1)[-1].strip()
    name = _PREFIX.sub("", name)
    while (found := _SUFFIX.search(name)) and not found[0][1:].startswith("20"):
        name = name[: found.start()]
    return name.replace("@", "-")


@lru_cache(maxsize=4096)
def canonical(model: str) -> str:
    """The dateless first-party id: `claude-haiku-4-5` for `claude-haiku-4-5-20251001` and all its other spellings.

    The old order of words is turned round (`claude-3-5-haiku` is `claude-haiku-3-5`). Unknown names come back as they are,
    but for the same marks; an empty name stays empty.
    """
    name = bare(model)
    while found := _SUFFIX.search(name):
        name = name[: found.start()]
    return _OLD_ORDER.sub(r"claude-\2-\1", name)
