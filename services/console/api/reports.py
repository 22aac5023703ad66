"""Usage and requests as the admin API tells them, from ClickHouse."""

from typing import Any

from services.console.api.answers import Answer, Instant
from shared.contracts.message import NanoUSD


class Tokens(Answer, frozen=True, kw_only=True):
    """Counts by class, disjoint but for thinking, which is a part of output."""

    input_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int = 0
    web_search_requests: int = 0


class RequestItem(Tokens, frozen=True, kw_only=True):
    """One client request with the sums of its entries. priced: every attempt has an entry in the ledger."""

    request_id: str
    received_at: Instant
    customer: str
    team: str
    key: str
    key_uid: str
    owner: str
    model: str
    provider: str
    operation: str
    session: str
    verdict: str
    reason: str
    budget_id: str
    status: int
    error_type: str
    message: str
    outcome: str
    stream: bool
    attempts: int
    priced: bool
    estimated: bool
    cost_nano_usd: NanoUSD
    charge_nano_usd: NanoUSD
    list_nano_usd: NanoUSD
    ttft_ms: int
    duration_ms: int


class Requests(Answer, frozen=True, kw_only=True):
    """Newest first; next_cursor is empty on the last page."""

    items: tuple[RequestItem, ...]
    next_cursor: str


class RequestStory(Answer, frozen=True, kw_only=True):
    """The whole story of one request. decision, attempts: the rows of the views `requests` and `usage`, names added."""

    request: RequestItem
    decision: dict[str, Any]
    attempts: tuple[dict[str, Any], ...]


class UsageAnswer(Answer, frozen=True, kw_only=True):
    """items: one per group, with a field per group_by and its sums; totals: over all of them."""

    items: tuple[dict[str, Any], ...]
    totals: dict[str, Any]
    group_by: tuple[str, ...]
    truncated: bool
