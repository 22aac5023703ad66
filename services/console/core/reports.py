"""The SQL of usage and requests: closed lists of columns, values bound by the server, never text from outside."""

import base64
from collections.abc import Callable

import msgspec

from services.console import api
from services.console.core.paths import find, org_named
from services.console.core.problem import Invalid
from shared import clock
from shared.contracts.config import Customer, Key, Provider, Team
from shared.contracts.message import Micros
from shared.directory import Directory

GROUPS: dict[str, dict[str, str]] = {
    "customer": {"customer": "any(customer)", "customer_uid": "customer_uid"},
    "team": {"team": "any(team)", "team_uid": "team_uid"},
    "key": {"key": "any(key)", "owner": "any(owner)", "key_uid": "key_uid"},
    "provider": {"provider": "any(provider)", "provider_uid": "provider_uid"},
    "model": {"model": "canonical_model"},
    "session": {"session": "session_id"},
    "day": {"day": "toString(toDate(ts, 'UTC'))"},
    "hour": {"hour": "formatDateTime(toStartOfHour(ts), '%Y-%m-%dT%H:00:00Z', 'UTC')"},
    "billing_class": {"billing_class": "billing_class"},
}
"""What usage can be grouped by, and the columns of each: names are told, uids are grouped by."""

SUMS = (
    *api.Tokens.__struct_fields__,
    "list_nano_usd",
    "cost_nano_usd",
    "charge_nano_usd",
)
MEASURES = {
    "requests": "uniqExact(request_id)",
    "attempts": "uniqExact(rid)",
    "estimated": "countIf(estimated)",
} | {name: f"sum({name})" for name in SUMS}
DIMENSIONS_OF_FOCUS = ("day", "customer", "team", "key", "provider", "model", "billing_class")


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """SQL with `{name:Type}` places and the values for them."""

    sql: str
    parameters: dict[str, str | int]


def usage(query: api.UsageQuery, directory: Directory) -> tuple[Query, tuple[str, ...]]:
    """The sums by group, the dearest first; and the groups. One row more than the limit tells that there is more."""
    groups = DIMENSIONS_OF_FOCUS if query.format == "focus" else _groups(query.group_by)
    where, parameters = _where(query, directory, "canonical_model")
    columns = {name: sql for group in groups for name, sql in GROUPS[group].items()}
    keys = [name for name, sql in columns.items() if not sql.startswith("any(")]
    # inside, the aliases differ from the columns: an alias of the same name would be put into the other sums
    inner = ", ".join(f"{sql} AS _{name}" for name, sql in (columns | MEASURES).items())
    outer = ", ".join(f"_{name} AS {name}" for name in (columns | MEASURES))
    grouped = f" GROUP BY {', '.join(f'_{name}' for name in keys)}" if keys else ""
    order = ", ".join([*(name for name in ("day", "hour") if name in keys), "cost_nano_usd DESC", *keys])
    sql = (
        f"SELECT {outer} FROM (SELECT {inner} FROM usage{where}{grouped})"  # noqa: S608  # closed lists
        f" ORDER BY {order} LIMIT {{most:UInt32}}"
    )
    return Query(sql=sql, parameters=parameters | {"most": query.limit + 1}), groups


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if unknown := [name for name in groups if name not in GROUPS]:
        raise Invalid("group_by", f"`{unknown[0]}` is none of {', '.join(GROUPS)}")
    return groups


def requests(query: api.RequestsQuery, directory: Directory) -> Query:
    """One page, newest first, with the sums of each request's entries; one row more than the limit."""
    where, parameters = _where(query, directory, "request_model")
    more: list[str] = []
    if query.verdict:
        more.append("verdict = {verdict:String}")
        parameters["verdict"] = query.verdict
    if query.status:
        more.append("status = {status:UInt16}")
        parameters["status"] = query.status
    if query.cursor:
        parameters["before"], parameters["before_id"] = read_cursor(query.cursor)
        more.append("(toUnixTimestamp64Micro(ts), request_id) < ({before:Int64}, {before_id:String})")
    for condition in more:
        where += f"{' AND' if where else ' WHERE'} {condition}"
    page = f"SELECT * FROM requests{where} ORDER BY ts DESC, request_id DESC LIMIT {{most:UInt32}}"  # noqa: S608  # closed lists
    return Query(sql=_with_sums(page), parameters=parameters | {"most": query.limit + 1})


def request(request_id: str) -> Query:
    page = "SELECT * FROM requests WHERE request_id = {request_id:String} ORDER BY ts DESC LIMIT 1"
    return Query(sql=_with_sums(page), parameters={"request_id": request_id})


def attempts(request_id: str) -> Query:
    """Every entry of a request, corrections included, in order."""
    return Query(
        sql="SELECT * FROM usage WHERE request_id = {request_id:String} ORDER BY attempt, stream_seq",
        parameters={"request_id": request_id},
    )


def spent_since(at: Micros) -> Query:
    """What was booked from an instant on, and how far into LEDGER the rows go."""
    sql = (
        "SELECT sum(cost_nano_usd) AS cost, uniqExact(request_id) AS requests, max(stream_seq) AS seq FROM usage"
        " WHERE ts >= fromUnixTimestamp64Micro({since:Int64})"
    )
    return Query(sql=sql, parameters={"since": at})


def _with_sums(page: str) -> str:
    """The entries are summed over the page's own requests alone: a look-up, not a scan of everything."""
    sums = ", ".join(f"sum({name}) AS sum_{name}" for name in SUMS)
    return (
        f"WITH page AS ({page}) SELECT page.*, sums.* FROM page LEFT JOIN (SELECT request_id AS of_request, {sums},"  # noqa: S608  # closed lists
        " uniqExact(rid) AS sum_priced, countIf(estimated) AS sum_estimated, argMax(response_model, attempt) AS"
        " served_model, argMax(provider, attempt) AS served_by FROM usage"
        " WHERE request_id IN (SELECT request_id FROM page) GROUP BY request_id) AS sums"
        " ON page.request_id = sums.of_request ORDER BY page.ts DESC, page.request_id DESC"
    )


def _where(filters: api.Filters, directory: Directory, model: str) -> tuple[str, dict[str, str | int]]:
    conditions: list[str] = []
    parameters: dict[str, str | int] = {}

    def add(name: str, condition: str, value: str | int) -> None:
        conditions.append(condition)
        parameters[name] = value

    if filters.from_:
        add("from", "ts >= fromUnixTimestamp64Micro({from:Int64})", _instant("from", filters.from_))
    if filters.to:
        add("to", "ts < fromUnixTimestamp64Micro({to:Int64})", _instant("to", filters.to))
    for name, value in _uids(filters, directory).items():
        add(name, f"{name}_uid = {{{name}:String}}", value)
    if filters.model:
        add("model", f"{model} = {{model:String}}", filters.model)
    if filters.session:
        add("session", "session_id = {session:String}", filters.session)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), parameters


def _uids(filters: api.Filters, directory: Directory) -> dict[str, str]:
    """What is filtered by, as uids. A name that the directory has lost may still be a uid that rows have."""
    found: dict[str, str] = {}
    resolvers: dict[str, Callable[[str], str]] = {
        "org": lambda name: found_org.uid if (found_org := org_named(directory, name)) else name,
        "customer": lambda name: find(directory, Customer, name, "customer").uid,
        "team": lambda name: find(directory, Team, name, "team").uid,
        "key": lambda name: find(directory, Key, name, "key").uid,
        "provider": lambda name: find(directory, Provider, name, "provider").uid,
    }
    for column, resolve in resolvers.items():
        if name := getattr(filters, column):
            try:
                found[column] = resolve(name)
            except Invalid as error:
                if error.code != "not_found":
                    raise
                found[column] = name
    return found


def _instant(field: str, text: str) -> Micros:
    try:
        return clock.parse(text)
    except ValueError:
        raise Invalid(field, f"`{text}` is not a date like 2026-11-01 or an RFC 3339 instant") from None


def cursor(received_at: Micros, request_id: str) -> str:
    return base64.urlsafe_b64encode(f"{received_at} {request_id}".encode()).decode()


def read_cursor(text: str) -> tuple[Micros, str]:
    try:
        at, _, request_id = base64.urlsafe_b64decode(text.encode()).decode().partition(" ")
        return int(at), request_id
    except ValueError:
        raise Invalid("cursor", "this is not a cursor of ours") from None
