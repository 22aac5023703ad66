"""What a reader may ask, judged on canonical text; the engine's part is in tests/e2e/test_analytics_facade.py."""

import pytest

from services.analytics.core.answers import Limits, QueryFailed, output_format, settings_of
from services.analytics.core.guard import Guard

LIMITS = Limits(max_execution_time=30, max_memory_usage=1000, max_result_bytes=1000)
guard = Guard(frozenset({"sum", "count", "quantile", "toDate", "file", "map", "Array", "format", "hasColumnInTable"}))


@pytest.mark.parametrize(
    "canonical",
    [
        "SELECT sumIf(cost_nano_usd, team = 'file(') FROM usage WHERE ts IN (1, 2)",
        "WITH x AS (SELECT 1) SELECT quantile(0.9)(a), sum(b) OVER (PARTITION BY c) FROM x",
        "SELECT {x:Array(String)}, (a, b).1, * EXCEPT (a) FROM numbers(10) AS n LIMIT 5",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "SHOW TABLES",
        "DESCRIBE TABLE usage",
        "EXPLAIN SELECT 1",
        "SELECT sumOrNullIf(a, b) FROM t FORMAT JSON",
    ],
)
def test_reading_is_allowed(canonical: str) -> None:
    assert guard.refusal(canonical) is None


@pytest.mark.parametrize(
    "canonical",
    [
        "SELECT file('/etc/passwd')",
        "SELECT `file`('/etc/passwd')",
        "SELECT * APPLY file FROM t",
        "SELECT * FROM url('http://x')",
        "DESCRIBE TABLE s3('x')",
        "EXPLAIN SELECT * FROM `url` ('x')",
        "SELECT * FROM t WHERE x IN (SELECT * FROM remote('h', 'a.b'))",
        "SELECT 1 INTO OUTFILE 'x' FORMAT CSV",
        "SELECT hasColumnInTable('host', 'a', 'b', 'c')",
        "INSERT INTO usage SELECT 1",
        "DROP TABLE usage",
        "KILL QUERY WHERE 1 ASYNC",
        "SET readonly = 0",
        "USE x",
        "SYSTEM SHUTDOWN",
        "CREATE TABLE x (a Int8) ENGINE = File(CSV, '/tmp/x')",
        "EXECUTE AS x SELECT 1",
        "",
    ],
)
def test_writing_files_and_other_sources_are_refused(canonical: str) -> None:
    assert guard.refusal(canonical) is not None


def test_a_quote_in_a_text_hides_nothing_after_it() -> None:
    assert guard.refusal(r"SELECT 'a\'', file('x')") is not None
    assert guard.refusal(r"SELECT 'it''s', `b\`c`, file('x')") is not None
    assert guard.refusal(r"SELECT 'a\', file(\'x\')'") is None


def test_limits_can_be_lowered_but_not_lifted() -> None:
    for asked, given in (("5", "5"), ("0", "30"), ("99", "30"), ("-1", "30"), ("x", "30")):
        assert settings_of({"max_execution_time": asked}, LIMITS)["max_execution_time"] == given


def test_a_setting_that_could_reach_a_file_or_lift_readonly_is_refused() -> None:
    for name in ("format_schema", "output_format_schema", "max_threads", "allow_introspection_functions"):
        with pytest.raises(QueryFailed) as refused:
            settings_of({name: "1"}, LIMITS)
        assert refused.value.code == 164
    assert "readonly" not in settings_of({"readonly": "0", "database": "x", "param_y": "1"}, LIMITS)


def test_the_format_is_the_one_of_the_query_or_the_default() -> None:
    assert output_format("SELECT 1 FORMAT JSONEachRow", "TabSeparated") == "JSONEachRow"
    assert output_format("SELECT 1 FORMAT TSVWithNames SETTINGS max_threads = 1", "Native") == "TabSeparatedWithNames"
    assert output_format("SELECT 'FORMAT JSON' AS x", "Native") == "Native"


def test_the_innermost_exception_of_the_engine_is_told() -> None:
    error = QueryFailed.from_engine("Code: 1. DB::Exception: Code: 60. DB::Exception: no table. (UNKNOWN_TABLE)")
    assert (error.code, error.status) == (60, 404)
    assert str(error).startswith("Code: 60. DB::Exception: no table")
