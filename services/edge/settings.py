"""Everything that can be set about an edge worker."""

import msgspec

from shared.bus import BusSettings


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from EDGE_…. http_*: health and metrics; listen_*: client traffic, 0 takes any free port.

    workers: so many processes that share the port, under a parent whose health port stands for all. The first has data_dir,
        the others a folder each below it; one that has left a spool there is started again. reuse_port is set for them.
        0: this process alone, whatever is there.
    reuse_port: several workers listen on one port, and the kernel spreads connections over them.
    tls_*_file: PEM, the certificate with its chain, and its key; empty: clients speak plain HTTP. Looked at once in
        tls_reload_seconds: a changed pair serves the next connections, one that cannot be used leaves the one before.
    max_connections: in all; one more is closed at once. max_connections_per_key: those with a request of the key running;
        one more request is answered 429, retryable. Idle ones have no key. 0: no limit.
    max_request_bytes_in_all: of bodies in memory, of all clients together; what does not fit is answered 503, retryable.
    max_buffered_bytes: of an answer that does not stream, before it goes out in parts.
    data_dir: the spool and the edge's identity; one worker alone uses it.
    spool_segment_bytes: 16–64 MiB. spool_reserve_bytes: free disk below which governed requests are refused, so that
        the ends of those in flight still fit.
    reserve_deadline_ms, reserve_first_tries: after so many silent tries the owner counts as away.
    upstream_idle_timeout_seconds: must stay above 600, since a model may think that long without a byte.
    upstream_max_connection_age_seconds: an older connection carries no further request.
    upstream_dns_*: how long resolved addresses are taken for true, and the last ones while the resolver fails.
    upstream_ca_file: PEM; trusted for providers and https proxies beside the system's store (or SSL_CERT_FILE).
    upstream_client_*_file: PEM; shown where a provider asks for a certificate. All three are read again when they change.
    leases: admit attempts on money lent in advance, where budget lends any, for as long as this edge is in touch.
    heartbeat_seconds: upstream silence after which the client gets a ping.
    """

    http_host: str = "127.0.0.1"
    http_port: int = 0
    ready_file: str = ""
    log_level: str = "info"
    bus: BusSettings = BusSettings()

    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    listen_backlog: int = 1024
    reuse_port: bool = False
    workers: int = 1
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_reload_seconds: float = 10.0
    data_dir: str = ".sluicegate/edge"

    queue_seconds: float = 20.0
    reserve_deadline_ms: int = 50
    reserve_first_tries: int = 3
    leases: bool = True

    spool_segment_bytes: int = 32 * 1024 * 1024
    spool_reserve_bytes: int = 64 * 1024 * 1024
    publish_window_records: int = 64

    header_timeout_seconds: float = 10.0
    body_idle_timeout_seconds: float = 30.0
    keep_alive_timeout_seconds: float = 75.0
    write_idle_timeout_seconds: float = 300.0
    max_body_bytes: int = 32 * 1024 * 1024
    max_header_bytes: int = 64 * 1024
    max_header_count: int = 128
    max_connections: int = 10_000
    max_connections_per_key: int = 1024
    max_request_bytes_in_all: int = 256 * 1024 * 1024
    max_buffered_bytes: int = 256 * 1024

    upstream_connect_timeout_seconds: float = 10.0
    upstream_idle_timeout_seconds: float = 900.0
    upstream_max_idle_connections: int = 64
    upstream_keep_alive_seconds: float = 30.0
    upstream_max_connection_age_seconds: float = 600.0
    upstream_dns_ttl_seconds: float = 30.0
    upstream_dns_stale_seconds: float = 3600.0
    upstream_ca_file: str = ""
    upstream_client_cert_file: str = ""
    upstream_client_key_file: str = ""
    heartbeat_seconds: float = 15.0
    drain_seconds: float = 600.0

    status_interval_seconds: float = 10.0
