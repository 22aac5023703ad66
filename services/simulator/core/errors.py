"""Failures in the provider's own words. Source: Anthropic's error reference, contract section 2.6."""

import msgspec

from services.simulator.core.directives import Directives

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    501: "not_supported_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    401: "invalid x-api-key",
    402: "Your credit balance is too low to access the Anthropic API.",
    413: "Request exceeds the maximum size",
    429: "This request would exceed the rate limit of your organization.",
    529: "Overloaded",
}
STATUSES = {"overloaded_error": 529, "rate_limit_error": 429, "billing_error": 402, "timeout_error": 504}
BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is an error from its first byte. error_type is empty where the body is not ours to name."""

    status: int
    error_type: str
    headers: dict[str, str]
    body: bytes


def envelope(error_type: str, message: str, request_id: str) -> bytes:
    """The body of an error answer, and the data of an error event."""
    error = {"type": error_type, "message": message}
    return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})


def refusal(status: int, message: str, request_id: str, error_type: str = "") -> Refusal:
    """An error answer with the type that belongs to its status."""
    kind = error_type or type_of(status)
    body = envelope(kind, message or MESSAGES.get(status, f"simulated {kind}"), request_id)
    return Refusal(status=status, error_type=kind, headers={"content-type": "application/json"}, body=body)


def type_of(status: int) -> str:
    """The error type of a status; unlisted ones by their class."""
    return TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def wanted(wish: Directives, request_id: str) -> Refusal | None:
    """The error answer that the directives ask for."""
    status = wish.status or (502 if wish.html else None)
    if status is None:
        return None
    answer = refusal(status, wish.message, request_id, wish.error_type)
    headers = dict(answer.headers)
    if wish.retry_after is not None:
        headers["retry-after"] = str(wish.retry_after)
    if wish.should_retry is not None:
        headers["x-should-retry"] = "true" if wish.should_retry else "false"
    if wish.html:
        headers["content-type"] = "text/html"
        return Refusal(status=status, error_type="", headers=headers, body=BAD_GATEWAY)
    return msgspec.structs.replace(answer, headers=headers)


def event_error(wish: Directives, request_id: str) -> bytes:
    """The data of the error event that breaks a stream."""
    kind = wish.error_type or "overloaded_error"
    return envelope(kind, wish.message or MESSAGES.get(STATUSES.get(kind, 500), f"simulated {kind}"), request_id)
