"""The checklist: docs/conformance.md has the same items in words for people. Checks are hung on it by number."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from services.cli.conformance.results import Item, Level

if TYPE_CHECKING:
    from services.cli.conformance.claude import Claude
    from services.cli.conformance.scene import Scene

_MUST = (
    "Serves POST {prefix}/v1/messages with any query string",
    "Takes the credential as bearer, x-api-key, or both",
    "Never forwards the virtual key",
    "Forwards the body's bytes unchanged",
    "Forwards anthropic-* and x-claude-code-* as open lists, strips hop-by-hop",
    "Relays a stream at once, pings and comments included",
    "Relays the provider's errors unmodified",
    "Answers what is not streamed with JSON",
    "Refuses for a spent budget with 429 billing_error, before any byte upstream",
    "Refuses for a rate with 429 rate_limit_error and an integer retry-after",
    "Refuses an unknown or revoked key with 401 and x-should-retry: false",
    "Denies by policy with 400, naming the alternatives, at no cost",
    "Never answers 403 or 404 for budgets or models",
    "Meters by the last message_delta merged over message_start",
    "Bills the model that the answer names",
    "Charges broken and aborted streams, and the client's repeat",
    "Counts tokens free, never blocked",
    "Gives every answer a request-id that the ledger knows",
    "Keeps a silent stream alive, for as long as the model thinks",
    "Always ends a stream with message_stop or an error event",
    "Takes bodies up to 32 MB, answers 413 above",
    "Redirects nowhere",
    "Refuses subscription tokens with an explanation",
    "Speaks MCP over HTTP",
    "Keeps no prompt text in logs, tolerates any metadata",
)
_SHOULD = (
    "Tells budgets in the unified overage headers, strips the provider's limits",
    "Serves GET /v1/models by the key's policy",
    "Answers HEAD / and HEAD /api/hello without a key",
    "Attributes by session, agent, prompt and request class",
    "Counts a storm of retries as one request",
    "Classifies background calls, so that a blocked title never loops",
    "Serves GET /api/oauth/usage for the key's budget",
    "Words its own limits on prompt size so that the client compacts",
    "Gives developers settings that fit the client",
    "Notices new betas, body keys and headers of the client",
)

Alone = Callable[["Scene"], Awaitable[str]]
WithClient = Callable[["Scene", "Claude"], Awaitable[str]]
F = TypeVar("F", bound=Callable[..., Awaitable[str]])


def _items() -> dict[int, Item]:
    levels: list[tuple[Level, str]] = [("MUST", title) for title in _MUST] + [("SHOULD", title) for title in _SHOULD]
    numbered = enumerate(levels, start=1)
    return {number: Item(number=number, level=level, title=title) for number, (level, title) in numbered}


ITEMS = _items()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at, which returns a line of evidence or raises Broken or NotOffered.

    needs: what the scene must have. last: after all others.
    """

    item: int
    needs: tuple[str, ...]
    last: bool = False
    look: Alone | None = None
    look_with_client: WithClient | None = None

    @property
    def title(self) -> str:
        look = self.look or self.look_with_client
        return str(getattr(look, "__name__", "")).replace("_", " ")


CHECKS: list[Check] = []
"""In the order of definition; `checks/__init__.py` imports all of them."""


def check(item: int, *needs: str) -> Callable[[F], F]:
    """Hang a check on an item; it speaks HTTP itself."""

    def hang(look: F) -> F:
        CHECKS.append(Check(item=item, needs=needs, look=look))
        return look

    return hang


def client_check(item: int, *needs: str, last: bool = False) -> Callable[[F], F]:
    """The same with the real client, once for each of its versions; several run at a time."""

    def hang(look: F) -> F:
        CHECKS.append(Check(item=item, needs=("claude", *needs), last=last, look_with_client=look))
        return look

    return hang
