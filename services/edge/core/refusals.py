"""Why a request is refused, in words, before any client's format is put on it."""

from typing import Literal

import msgspec

from shared.contracts.message import Micros
from shared.errors import Rejected, Unavailable

Reason = Literal[
    "authentication",  # who are you? never retryable
    "invalid",  # the request itself, model policy, unpriced
    "not_found",  # no such operation
    "too_large",
    "spent",  # a budget is used up
    "busy",  # a budget's money is held by calls in flight, or a rate limit is reached
    "beyond",  # above a rate limit by itself, so that no waiting helps
    "unavailable",  # we cannot decide or forward now; try again
    "misconfigured",  # trying again does not help, an administrator must act
    "not_supported",  # the provider does not have it
    "timeout",  # the client was too slow
]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """The budget or rate limit behind a refusal, for headers and the request log. resets_at: microseconds, 0 never."""

    budget_id: str
    period: str
    utilization_ppm: int
    resets_at: Micros
    pooled: bool


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """message: one sentence, safe to show. code: for the request log (Denied.reason, or why it was rejected).

    retry_after_s: 0 leaves the header out.
    """

    reason: Reason
    message: str
    code: str
    retry_after_s: int = 0
    limit: Limit | None = None


def not_found(method: str, path: str) -> Refusal:
    bare = path.partition("?")[0][:200]
    return Refusal(reason="not_found", code="not_found", message=f"{method} {bare} is not served by this gateway.")


def no_such_model(model: str) -> Refusal:
    """When a model is looked up. Asking one that is denied is another matter, see `policy.plan`."""
    return Refusal(reason="not_found", code="not_found", message=f"There is no model '{model}' for this key.")


def too_large(limit_bytes: int) -> Refusal:
    return Refusal(
        reason="too_large",
        code="request_too_large",
        message=f"Request exceeds the maximum size of {limit_bytes // (1024 * 1024)} MB.",
    )


def rejected(error: Rejected) -> Refusal:
    """A request that cannot be read, or that names what there is not."""
    by_status: dict[int, Reason] = {408: "timeout", 413: "too_large"}
    return Refusal(reason=by_status.get(error.status, "invalid"), code=error.code, message=error.message)


def unavailable(error: Unavailable) -> Refusal:
    """A neighbour of ours is away: nothing was sent, and the client may ask again."""
    return Refusal(
        reason="unavailable",
        code=f"{error.neighbour}_unavailable",
        message=f"The gateway cannot reach its {error.neighbour} service; nothing was sent to the provider.",
        retry_after_s=max(1, error.retry_after_s),
    )


def crowded(most: int) -> Refusal:
    """Requests of one key at once, at one worker: nothing is asked of budget for it."""
    return Refusal(
        reason="busy",
        code="key_crowded",
        message=f"Too many requests at once: {most:,} of this key are running here, the most there may be; retry in 1 s.",
        retry_after_s=1,
    )


def spool_failed() -> Refusal:
    return Refusal(
        reason="unavailable",
        code="spool_failed",
        message="The gateway cannot record usage now, so nothing was sent to the provider.",
        retry_after_s=5,
    )


def credential_missing(provider: str, reference: str) -> Refusal:
    """reference: `env:NAME` or `file:/path`, never what it stands for."""
    return Refusal(
        reason="misconfigured",
        code="credential_missing",
        message=f"The gateway has no credential for provider '{provider}': {reference} is not set or not readable.",
    )


def upstream_unreachable(provider: str) -> Refusal:
    return Refusal(
        reason="unavailable",
        code="upstream_unreachable",
        message=f"The gateway cannot connect to provider '{provider}'; nothing was sent.",
        retry_after_s=2,
    )


def upstream_redirected(provider: str) -> Refusal:
    """Never passed on: the client would follow it with the virtual key and the prompt, around the ledger."""
    return Refusal(
        reason="misconfigured",
        code="upstream_redirected",
        message=f"Provider '{provider}' answered with a redirect, which is not followed; its base_url must be changed.",
    )


def is_redirect(status: int) -> bool:
    return 300 <= status < 400 and status != 304  # "not modified" sends nobody anywhere
