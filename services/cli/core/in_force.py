"""What the console tells of a change that was waited for, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

WAIT = {"wait": "2"}
"""Query of a call that changes something; the answer to it says who has it."""


def words(found: Mapping[str, Any] | None) -> Iterator[str]:
    """`in force on 8 of 8 edges after 120 ms`, then a line for each one that lags. Nothing from an older console."""
    if not found:
        return
    edges = found["edges"]
    good = len(edges) - len(found["lagging"])
    yield f"in force on {good} of {len(edges)} edges after {found['waited_ms']} ms"
    for edge in edges:
        if edge["lagging"]:
            yield f"edge {edge['edge']} lags: it is at revision {edge['config_rev']} of {found['config_rev']}"
    for shard in found["shards"]:
        if shard["lagging"]:
            at = f"is at revision {shard['config_rev']}" if shard["config_rev"] else "does not answer"
            yield f"the owner of shard {shard['shard']} lags: it {at}, and nothing passes there on older rules"
        for org in shard.get("moving", ()):
            yield f"organisation {org} is still on its way from or to shard {shard['shard']}"
