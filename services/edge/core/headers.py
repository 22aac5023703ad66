"""Which headers pass, in both directions: open lists, from which only what must not pass is taken."""

from collections.abc import Iterable, Mapping

from shared.contracts.budget import Standing

Header = tuple[bytes, bytes]
Headers = list[Header]
"""Names and values as they came off the wire, in order."""

Index = Mapping[bytes, bytes]
"""Lower-case name to value; values of a repeated name are joined by a comma, as HTTP reads them."""

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect", b"content-length")
)
"""They belong to one connection. Content-Length too: each side frames its own body anew."""

CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"cookie", b"cookie2"))
OURS = (b"x-sluicegate-", b"proxy-")
NEVER_UP = HOP_BY_HOP | CREDENTIALS | {b"host", b"accept-encoding"}
NEVER_DOWN = HOP_BY_HOP | {b"set-cookie"}
NEVER_DOWN_PREFIXES = (b"anthropic-ratelimit-", *OURS)
"""anthropic-ratelimit-* tell about the provider's key, which all clients share."""
WARNINGS = ((950_000, b"0.95"), (750_000, b"0.75"))  # contract 2.5: the thresholds that the client has a notice for

BELOW_ONE = 990_000  # 1 would mean that no more is served; a soft budget goes on above its limit


def index(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """See Index."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        found[lower] = found[lower] + b", " + value if lower in found else value
    return found


def request_headers_for_upstream(headers: Headers, credential: Header) -> Headers:
    """What is sent upstream before `Host` and the body's framing, which the upstream connection adds itself.

    credential: the header that carries the provider's secret; the client's own never passes.
    Encoding is asked to be identity, so that the meter can read the answer.
    """
    kept = _passing(headers, NEVER_UP, OURS)
    kept.append((b"accept-encoding", b"identity"))
    kept.append(credential)
    return kept


def _passing(headers: Headers, stopped: frozenset[bytes], stopped_prefixes: tuple[bytes, ...]) -> Headers:
    """Without those, and without what `Connection` declares hop-by-hop. In one pass: it runs twice for each request."""
    kept, declared = Headers(), b""
    for header in headers:
        name = header[0].lower()
        if name in stopped or name.startswith(stopped_prefixes):
            if name == b"connection":
                declared += b"," + header[1]
        else:
            kept.append(header)
    if not declared:
        return kept
    named = frozenset(token.strip().lower() for token in declared.split(b","))
    return [header for header in kept if header[0].lower() not in named]


def response_headers_for_client(headers: Headers, request_id: str, added: Headers) -> Headers:
    """The upstream's headers as the client gets them; `request-id` is made up only where upstream gave none.

    added: ours, as `budget_headers` makes them. Framing (Content-Length, Transfer-Encoding) is the connection's.
    """
    kept = _passing(headers, NEVER_DOWN, NEVER_DOWN_PREFIXES)
    if not any(name.lower() == b"request-id" for name, _ in kept):
        kept.append((b"request-id", request_id.encode()))
    kept += added
    return kept


def budget_headers(standings: tuple[Standing, ...]) -> Headers:
    """The native warning protocol on a successful answer, for the fullest budget; none without budgets."""
    if not standings:
        return []
    fullest = standings[0]
    surpassed = next((text for ppm, text in WARNINGS if fullest.utilization_ppm >= ppm), b"")
    status = b"allowed_warning" if surpassed else b"allowed"
    found = [
        (b"anthropic-ratelimit-unified-status", status),
        (b"anthropic-ratelimit-unified-representative-claim", b"overage"),
        (b"anthropic-ratelimit-unified-overage-status", status),
        (b"anthropic-ratelimit-unified-overage-utilization", utilization(min(fullest.utilization_ppm, BELOW_ONE))),
    ]
    if surpassed:
        found.append((b"anthropic-ratelimit-unified-overage-surpassed-threshold", surpassed))
    return [*found, *reset_headers(fullest.resets_at)]


def reset_headers(resets_at: int) -> Headers:
    """When the budget is full again, in Unix seconds; none for one that never resets. resets_at: microseconds."""
    if not resets_at:
        return []
    at = str(-(-resets_at // 1_000_000)).encode()
    return [(b"anthropic-ratelimit-unified-reset", at), (b"anthropic-ratelimit-unified-overage-reset", at)]


def utilization(ppm: int) -> bytes:
    """`0.76`, rounded down: 1 must mean that it is spent."""
    return b"%d.%02d" % divmod(max(ppm, 0) // 10_000, 100)
