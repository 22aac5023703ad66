"""Which settings of our services a chart value may name: all but those that the chart itself decides."""

import importlib
from typing import Any

import msgspec

SERVICES = ("edge", "budget", "pricing", "audit", "analytics", "console", "telemetry", "simulator")

WIRED = {
    *("http_host", "http_port", "ready_file", "listen_host", "listen_port", "data_dir"),
    *("bus_url", "bus_prefix", "bus_user", "bus_password", "bus_monitor_url"),
    *("bus_credentials_file", "bus_nkey_seed_file", "bus_tls_ca_file", "bus_tls_cert_file", "bus_tls_key_file"),
    *(
        "clickhouse_url",
        "clickhouse_user",
        "clickhouse_password",
        "clickhouse_database",
        "database",
        "cluster",
        "engine",
    ),
    *("shards", "replica", "admin_token", "edge_url"),
}
"""Set by the chart from other values."""

UNFIT = {
    "reuse_port": "one worker to a pod",
    "facade_host": "of the embedded engine, which a cluster does not run",
    "facade_port": "as facade_host",
    "query_concurrency": "as facade_host",
    "query_max_seconds": "as facade_host",
    "query_max_memory_bytes": "as facade_host",
    "query_max_result_bytes": "as facade_host",
    "admin_token_file": "the Secret is a variable",
    "bill_file": "in data_dir",
    "home_shards": "pods of a Deployment have no place of their own",
}
"""Of no use in a cluster, with the reason."""


def struct_of(service: str) -> type[msgspec.Struct]:
    found: type[msgspec.Struct] = importlib.import_module(f"services.{service}.settings").Settings
    return found


def fields(struct: type[msgspec.Struct], prefix: str = "") -> dict[str, dict[str, Any]]:
    """JSON Schema of each setting by name, nested ones joined by an underscore as their variables are."""
    (schema,), components = msgspec.json.schema_components([struct])
    found: dict[str, dict[str, Any]] = {}
    described = components[schema["$ref"].rsplit("/", 1)[1]]["properties"]
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= fields(field.type, f"{prefix}{field.name}_")
        else:
            found[f"{prefix}{field.name}"] = portable(described[field.encode_name])
    return found


def portable(schema: dict[str, Any]) -> dict[str, Any]:
    """Without a default that is a path where this checkout happens to be."""
    local = str(schema.get("default", "")).startswith("/")
    return {name: value for name, value in schema.items() if not (local and name == "default")}


def free(service: str) -> dict[str, dict[str, Any]]:
    """What `services.NAME.settings` may hold."""
    return {
        name: schema for name, schema in fields(struct_of(service)).items() if name not in WIRED and name not in UNFIT
    }


def definitions() -> dict[str, dict[str, Any]]:
    """A closed object for each service, and for what all have in common."""
    every = {service: free(service) for service in SERVICES}
    common = {name: schema for name, schema in every["edge"].items() if all(name in own for own in every.values())}
    return {
        f"settings.{service}": {"type": "object", "additionalProperties": False, "properties": own}
        for service, own in {"common": common, **every}.items()
    }
