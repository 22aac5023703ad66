"""ClickHouse's HTTP conventions: which status an exception has, what a format is called, which settings a reader may choose."""

import re
from collections.abc import Mapping

import msgspec

_TRANSPORT = """
    query query_id database default_format user password role session_id session_timeout session_check
    quota_key wait_end_of_query buffer_size send_progress_in_http_headers http_headers_progress_interval_ms
    enable_http_compression client_protocol_version http_zlib_compression_level add_http_cors_header
    cancel_http_readonly_queries_on_client_close stacktrace close_session readonly framing
"""
TRANSPORT = frozenset(_TRANSPORT.split())
"""URL parameters that are about the connection; they are read by us or have no meaning here."""

_CHOOSABLE = """
    extremes limit offset session_timezone join_use_nulls date_time_output_format date_time_input_format
    output_format_json_quote_64bit_integers output_format_json_quote_denormals
    output_format_json_quote_decimals output_format_json_named_tuples_as_objects
    output_format_json_array_of_rows output_format_decimal_trailing_zeros output_format_write_statistics
    output_format_pretty_max_rows output_format_pretty_color output_format_csv_crlf_end_of_line
    output_format_parquet_string_as_string output_format_arrow_string_as_string
    output_format_arrow_compression_method output_format_parquet_compression_method
    output_format_native_encode_types_in_binary_format output_format_binary_encode_types_in_binary_format
    format_csv_delimiter format_tsv_null_representation format_csv_null_representation max_block_size
    low_cardinality_allow_in_native_format group_by_overflow_mode union_default_mode
    count_distinct_implementation prefer_column_name_to_alias use_client_time_zone
    aggregate_functions_null_for_empty transform_null_in
"""
CHOOSABLE = frozenset(_CHOOSABLE.split())
"""Settings a reader may choose: they shape the answer, reach no file and lift no limit."""

LOWERABLE = frozenset(
    {"max_execution_time", "max_memory_usage", "max_result_bytes", "max_result_rows", "max_rows_to_read"}
)
"""Limits a reader may set below ours."""

STATUSES = {
    **dict.fromkeys((46, 47, 60, 63, 73, 81, 115), 404),  # unknown function, name, table, format, database, setting
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 42, 43, 44, 53, 62, 72, 130, 131, 386, 452, 456, 457), 400),
    **dict.fromkeys((164, 291, 497), 403),
    48: 501,
    202: 503,
}

CONTENT_TYPES = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "CSVWithNamesAndTypes": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSONCompactEachRow": "application/x-ndjson; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "RowBinaryWithNamesAndTypes": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
}
_ALIASES = {name.replace("TabSeparated", "TSV"): name for name in CONTENT_TYPES if name.startswith("TabSeparated")}
_FORMAT = re.compile(r"\bFORMAT ([A-Za-z0-9_]+)(?: SETTINGS .*)?$", re.DOTALL)
_CODE = re.compile(r"Code: (\d+)\.")


class QueryFailed(Exception):
    """As ClickHouse says it: `Code: N. DB::Exception: …`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUSES.get(code, 500)

    @classmethod
    def of(cls, code: int, message: str, name: str) -> "QueryFailed":
        return cls(code, f"Code: {code}. DB::Exception: {message}. ({name})")

    @classmethod
    def from_engine(cls, text: str) -> "QueryFailed":
        """text: of the engine's exception, which may repeat its prefix."""
        found = list(_CODE.finditer(text))
        if not found:
            return cls(1002, f"Code: 1002. DB::Exception: {text}")
        return cls(int(found[-1][1]), text[found[-1].start() :].strip())


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one query."""

    max_execution_time: int
    max_memory_usage: int
    max_result_bytes: int


def settings_of(asked: Mapping[str, str], limits: Limits) -> dict[str, str]:
    """The settings a query runs with, in the order to set them. Raises QueryFailed for one a reader may not choose."""
    chosen = {name: value for name, value in asked.items() if name not in TRANSPORT and not name.startswith("param_")}
    for name in chosen:
        if name not in CHOOSABLE and name not in LOWERABLE:
            raise QueryFailed.of(164, f"Cannot modify '{name}' setting in readonly mode", "READONLY")
    ours = {
        "session_timezone": "UTC",
        "max_threads": "1",
        "priority": "10",  # behind the sink's inserts
        "use_uncompressed_cache": "0",
        "allow_introspection_functions": "0",
        "result_overflow_mode": "throw",
        "timeout_overflow_mode": "throw",
    }
    for name, most in msgspec.structs.asdict(limits).items():
        ours[name] = str(_lowered(chosen.get(name, ""), most))
    return ours | {name: value for name, value in chosen.items() if name not in ours or name == "session_timezone"}


def _lowered(asked: str, most: int) -> int:
    """0 and nonsense mean no limit to ClickHouse, so ours."""
    value = int(asked) if asked.isdecimal() else 0
    return min(value, most) if value else most


def output_format(canonical: str, default: str) -> str:
    """The format a query names, else the default."""
    found = _FORMAT.search(canonical)
    name = found[1] if found else default
    return _ALIASES.get(name, name)
