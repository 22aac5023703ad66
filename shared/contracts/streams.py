"""The durable logs and buckets on JetStream: names, subjects, retention.

All logs are kept for ever and refuse when full (discard new): a full disk must refuse, never forget. SNAPSHOTS alone is no log:
its owner removes what newer ones replace, and LEDGER can always be replayed without it.
`Names` puts the configured prefix before every subject, stream and bucket.
"""

import msgspec

USAGE = "USAGE"
PRICED = "PRICED"
LEDGER = "LEDGER"
REQUESTS = "REQUESTS"
AUDIT = "AUDIT"
CONFIG = "CONFIG"
PRICES = "PRICES"
SNAPSHOTS = "SNAPSHOTS"

STREAMS: dict[str, str] = {
    USAGE: "usage.recorded.*",
    PRICED: "usage.priced.*",
    LEDGER: "ledger.*",
    REQUESTS: "request.completed",
    AUDIT: "audit.append.*",
    CONFIG: "config.changed",
    PRICES: "prices.book",
    SNAPSHOTS: "snapshot.*.*",
}
"""Stream name to the subjects it stores."""

SNAPSHOT = "snapshot.{shard}.{id}"
"""One snapshot: its parts in order, its manifest last. What they hold is the owner's own and changes with its release."""

DECISIONS = "DECISIONS"
EDGES = "EDGES"
OWNERS = "OWNERS"
READERS = "READERS"
BUCKETS = (DECISIONS, EDGES, OWNERS, READERS)
"""Key-value buckets, history 1, no expiry. READERS: how far who has no better place for it has read, by its name and the log's."""

DEDUPLICATION_SECONDS = 120


class Names(msgspec.Struct, frozen=True):
    """Puts the prefix of this installation before every name on the broker."""

    prefix: str = ""

    def subject(self, subject: str) -> str:
        return f"{self.prefix}.{subject}" if self.prefix else subject

    def stream(self, stream: str) -> str:
        return f"{self.prefix}_{stream}" if self.prefix else stream


class Position(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A place in a log. `log_id` names the stream's incarnation, so that a recreated stream is noticed, not skipped."""

    log_id: str = ""
    seq: int = 0
