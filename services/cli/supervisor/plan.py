"""Which processes run, with which variables. Pure: what the user's environment and options come to."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from services.cli.supervisor.data import Layout
from services.cli.supervisor.organisation import API_KEY
from services.cli.supervisor.ports import LOOPBACK
from services.cli.supervisor.program import Service

ON_THE_BUS = ("budget", "pricing", "audit", "analytics", "console", "edge")
TELEMETRY = "telemetry"
MAY_BE_ON_THE_BUS = (*ON_THE_BUS, TELEMETRY)
DATABASE = "sluicegate"  # of analytics
EDGE_DRAIN_SECONDS = 8.0  # streams that last longer end well-formed, before the supervisor loses patience
SIMULATED_KEY = "simulator"  # what edge sends as the provider's key when there is none; the simulator takes any

INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"),
    }
)
INHERITED_PREFIXES = ("LC_", "OTEL_")
OVERRIDE = "SLUICEGATE_"
"""`SLUICEGATE_EDGE_LOG_LEVEL=debug sluicegate up` sets the edge's EDGE_LOG_LEVEL; a bare EDGE_… is somebody else's."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Of `sluicegate up`. A port of 0 is any free one. edges, budgets: processes of each; shards: of the ledger."""

    data_dir: Path = Path(".sluicegate")
    org: Path | None = None
    edge_port: int = 8080
    console_port: int = 8081
    clickhouse_port: int = 8123
    nats_port: int = 4222
    edges: int = 1
    budgets: int = 1
    shards: int = 1
    edge_tls_cert: Path | None = None
    edge_tls_key: Path | None = None

    def edge_url(self, port: int) -> str:
        """Where clients find the edge."""
        return f"{'https' if self.edge_tls_cert else 'http'}://{LOOPBACK}:{port}"


class BusUrls(msgspec.Struct, frozen=True):
    """Where the broker is."""

    url: str
    monitor_url: str


def base_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What every child gets: a list of names, so that neither credentials nor a foreign EDGE_… reach it by accident."""
    found = {name: value for name, value in environ.items() if name in INHERITED or name.startswith(INHERITED_PREFIXES)}
    for name in ("NO_PROXY", "no_proxy"):  # our own processes are never behind the user's proxy
        found[name] = ",".join(filter(None, (environ.get(name, ""), LOOPBACK, "localhost")))
    return found


def overrides(environ: Mapping[str, str], service: str) -> dict[str, str]:
    """Settings that the user passes to one service on purpose."""
    prefix = f"{OVERRIDE}{service.upper()}_"
    return {name.removeprefix(OVERRIDE): value for name, value in environ.items() if name.startswith(prefix)}


def has_key(environ: Mapping[str, str]) -> bool:
    """Whether there is a real provider to talk to; an empty variable is none."""
    return bool(environ.get(API_KEY))


def traced(environ: Mapping[str, str]) -> bool:
    """Whether there is a receiver for traces and metrics; all about it is in OTEL_…, which every child gets."""
    return any(environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))


def simulator(environ: Mapping[str, str], layout: Layout, port: int) -> Service:
    variables = {
        "SIMULATOR_HTTP_PORT": str(port),
        "SIMULATOR_BILL_FILE": str(layout.bill),
        "SIMULATOR_DATA_DIR": str(layout.of("simulator")),
    }
    return _service("simulator", "simulator", environ, layout, variables, {})


def names(kind: str, count: int) -> list[str]:
    """edge, edge-2, edge-3: the first keeps the name that it has alone, and so its folder."""
    return [kind, *(f"{kind}-{number}" for number in range(2, count + 1))]


def budget(replica: str, options: Options, shards: list[str]) -> dict[str, str]:
    """One replica has a name only where there are others: alone it need not look who lives before it takes a shard."""
    given = {
        "BUDGET_SHARDS": ",".join(shards),
        "BUDGET_CLICKHOUSE_URL": f"http://{LOOPBACK}:{options.clickhouse_port}/{DATABASE}",
    }
    if options.budgets == 1:
        return given
    place = names("budget", options.budgets).index(replica)
    home = shards[place :: options.budgets]
    return given | {"BUDGET_REPLICA": replica, "BUDGET_HOME_SHARDS": ",".join(home) or "none"}


def edge(name: str, options: Options, layout: Layout) -> dict[str, str]:
    """Each has a folder, and so an identity and a spool, of its own; all listen on one port."""
    # not resolved: a link that is changed to point elsewhere is how certificates are renewed
    files = {"EDGE_TLS_CERT_FILE": options.edge_tls_cert, "EDGE_TLS_KEY_FILE": options.edge_tls_key}
    return {variable: str(path.absolute()) for variable, path in files.items() if path} | {
        "EDGE_LISTEN_PORT": str(options.edge_port),
        "EDGE_REUSE_PORT": str(options.edges > 1).lower(),
        "EDGE_DATA_DIR": str(layout.of(name)),
        "EDGE_DRAIN_SECONDS": str(EDGE_DRAIN_SECONDS),
    }


def services(
    environ: Mapping[str, str], layout: Layout, options: Options, bus: BusUrls, token_file: Path, shards: list[str]
) -> list[Service]:
    """Everything that meets on the bus, in the order of starting; stopping goes the other way."""
    own: dict[str, dict[str, str]] = {
        "analytics": {
            "ANALYTICS_FACADE_PORT": str(options.clickhouse_port),
            "ANALYTICS_DATA_DIR": str(layout.of("clickhouse")),
        },
        "console": {
            "CONSOLE_HTTP_PORT": str(options.console_port),
            "CONSOLE_ADMIN_TOKEN_FILE": str(token_file),
            "CONSOLE_CLICKHOUSE_URL": f"http://{LOOPBACK}:{options.clickhouse_port}",
            "CONSOLE_EDGE_URL": f"{options.edge_url(options.edge_port)}/anthropic",
        },
    }
    own |= {name: budget(name, options, shards) for name in names("budget", options.budgets)}
    own |= {name: edge(name, options, layout) for name in names("edge", options.edges)}
    counts = {"edge": options.edges, "budget": options.budgets}
    port_variables = {"edge": {"edge": "EDGE_LISTEN_PORT"}, "analytics": {"clickhouse": "ANALYTICS_FACADE_PORT"}}
    made = []
    for kind in MAY_BE_ON_THE_BUS if traced(environ) else ON_THE_BUS:
        prefix = kind.upper()
        urls = {f"{prefix}_BUS_URL": bus.url, f"{prefix}_BUS_MONITOR_URL": bus.monitor_url}
        for name in names(kind, counts.get(kind, 1)):
            variables = urls | own.get(name, {})
            made.append(_service(name, kind, environ, layout, variables, port_variables.get(kind, {})))
    return made


def _service(
    name: str,
    kind: str,
    environ: Mapping[str, str],
    layout: Layout,
    variables: dict[str, str],
    port_variables: dict[str, str],
) -> Service:
    prefix, ready_file = kind.upper(), layout.ready_file(name)
    return Service(
        name,
        kind,
        base_environ(environ) | {f"{prefix}_READY_FILE": str(ready_file)} | variables | overrides(environ, kind),
        ready_file,
        {"http": f"{prefix}_HTTP_PORT"} | port_variables,
    )


def credentials(environ: Mapping[str, str], names: set[str]) -> dict[str, str]:
    """What edge alone gets: the variables that `env:` references name, and a key for the simulator where there is none."""
    found = {name: environ[name] for name in sorted(names | {API_KEY}) if environ.get(name)}
    return found if API_KEY in found else found | {API_KEY: SIMULATED_KEY}
