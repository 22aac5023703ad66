"""Rows of the views as the API tells them."""

from typing import cast

from services.console import api
from services.console.core.reports import SUMS
from shared.clock import rfc3339

Row = dict[str, object]
INSTANTS = ("ts", "admitted_at", "sent_at", "closed_at", "booked_at", "committed_at")


def request_item(row: Row) -> api.RequestItem:
    """A row of `requests` with the sums over its entries."""

    def text(name: str) -> str:
        return str(row.get(name) or "")

    def number(name: str, missing: int = 0) -> int:
        found = row.get(name)
        return missing if found is None else int(cast(int, found))

    attempts = number("attempt_count")
    return api.RequestItem(
        request_id=text("request_id"),
        received_at=rfc3339(number("ts")),
        customer=text("customer"),
        team=text("team"),
        key=text("key"),
        key_uid=text("key_uid"),
        owner=text("owner"),
        model=text("served_model") or text("wire_model") or text("request_model"),
        provider=text("served_by") or text("provider"),
        operation=text("operation"),
        session=text("session_id"),
        verdict=text("verdict"),
        reason=text("reason"),
        budget_id=text("budget_id"),
        status=number("status"),
        error_type=text("error_type"),
        message=text("message"),
        outcome=text("outcome"),
        stream=bool(row.get("stream")),
        attempts=attempts,
        priced=number("sum_priced") >= attempts,
        estimated=number("sum_estimated") > 0,
        ttft_ms=number("ttft_ms", -1),
        duration_ms=number("duration_ms"),
        **{name: number(f"sum_{name}") for name in SUMS},
    )


def told(row: Row) -> Row:
    """A whole row with instants as people read them."""
    return {
        name: rfc3339(cast(int, value)) if name in INSTANTS and value is not None else value
        for name, value in row.items()
        if not name.startswith("sum_") and name not in ("of_request", "served_model", "served_by")
    }


def totals(rows: list[Row], names: tuple[str, ...]) -> Row:
    """Sums over groups of what can be added; a request in two groups would count twice, so those are left out."""
    return {name: sum(int(cast(int, row[name])) for row in rows) for name in names}
