"""ClickHouse's HTTP protocol over the embedded engine, as programs and as attackers use it."""

import asyncio
import gzip
import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

import lz4.frame  # type: ignore[import-untyped]  # ships no type information
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from ulid import ULID

from services.analytics.settings import Settings
from services.analytics.stores.database import open_database
from shared.bus import BusSettings, open_bus, provision
from shared.contracts.config import ConfigChanged, Customer, Key, Org, Provider, Team
from shared.contracts.message import encode
from shared.errors import Unavailable
from tests.fixtures.analytics import Analytics
from tests.fixtures.broker import Broker
from tests.fixtures.ledger import START, commit, entry, request

ORGANISATION = ConfigChanged(
    config_rev=1,
    at=START,
    actor="admin",
    puts=(
        Org(uid="ORG", id="default"),
        Customer(uid="CUSTOMER", org="ORG", id="acme"),
        Team(uid="TEAM", org="ORG", customer="CUSTOMER", id="platform"),
        Key(uid="KEY", org="ORG", customer="CUSTOMER", team="TEAM", id="dev-asha", owner="asha@acme.example"),
        Provider(uid="PROVIDER", org="ORG", name="anthropic", kind="anthropic", base_url="http://127.0.0.1:1"),
    ),
)


async def fill(settings: BusSettings) -> None:
    async with open_bus(settings, "test") as bus:
        await provision(bus)
        await bus.append("config.changed", encode(ORGANISATION))
        await bus.append("request.completed", encode(request("req_1")))
        await bus.append("request.completed", encode(request("req_1")))  # an edge that published twice
        await bus.append("request.completed", encode(request("req_2", verdict="refused")))
        for n in range(20):
            await bus.append("ledger.0", encode(commit(entry(at=START + n), entry(at=START + n), at=START + n)))


@pytest.fixture(scope="module")
def served(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Analytics]:
    """Forty entries, two requests; queries may take two seconds."""
    settings = broker.settings(f"t{ULID()}")
    asyncio.run(fill(settings))
    running = Analytics(tmp_path_factory.mktemp("facade"), settings, query_max_seconds="2")
    running.start()
    yield running
    running.stop()


def ask(
    served: Analytics, sql: str = "", *, body: bytes | None = None, headers: Mapping[str, str] = {}, **values: str
) -> tuple[HTTPResponse, bytes]:
    """One request as curl makes it; sql goes into the URL."""
    connection = HTTPConnection("127.0.0.1", served.ports["clickhouse"], timeout=30)
    path = "/?" + urlencode(values | ({"query": sql} if sql else {}))
    connection.request("GET" if body is None else "POST", path, body=body, headers=dict(headers))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_names_are_joined_and_money_is_exact(served: Analytics) -> None:
    rows = served.client().query(
        "SELECT org, customer, team, key, owner, provider, count(), sum(cost_nano_usd) FROM usage GROUP BY ALL"
    )
    expected = 40 * entry().usage.cost_nano_usd
    assert rows.result_rows == [
        ("default", "acme", "platform", "dev-asha", "asha@acme.example", "anthropic", 40, expected)
    ]


def test_a_request_published_twice_is_one_row(served: Analytics) -> None:
    rows = served.client().query(
        "SELECT request_id, verdict, key, admitted_at IS NULL FROM requests ORDER BY request_id"
    )
    assert rows.result_rows == [("req_1", "admitted", "dev-asha", 0), ("req_2", "refused", "dev-asha", 1)]


def test_parameters_are_bound_by_the_server(served: Analytics) -> None:
    tricky = "it's \\ a\ttab\nand {x:String}"
    rows = served.client().query(
        "SELECT {s:String}, {n:Int64} + 1, {a:Array(String)}", parameters={"s": tricky, "n": 41, "a": ["x", tricky]}
    )
    assert rows.result_rows == [(tricky, 42, ["x", tricky])]


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_answers_come_in_the_compression_the_client_asks_for(served: Analytics, compress: str | bool) -> None:
    rows = served.client(compress=compress).query("SELECT number, toString(number) FROM numbers(10000)").result_rows
    assert rows[-1] == (9999, "9999")


def test_every_column_of_usage_reaches_the_client(served: Analytics) -> None:
    row = next(iter(served.client().query("SELECT * FROM usage ORDER BY ts LIMIT 1").named_results()))
    assert row["tags"] == {"cost_center": "4711"}
    assert row["lines"][0]["meter"] == "input"
    assert row["body_digest"] == "00" * 32
    assert row["ts"].microsecond == 0


@pytest.mark.parametrize(
    ("sql", "body", "url", "expected"),
    [
        ("SELECT 1", None, {}, b"1\n"),
        ("", b"SELECT 1", {}, b"1\n"),
        ("SELECT 1,", b"2 FORMAT CSV", {}, b"1,2\n"),
        ("SELECT 1 AS x FORMAT JSONEachRow", None, {}, b'{"x":1}\n'),
        ("SELECT 1 AS x", None, {"default_format": "CSVWithNames"}, b'"x"\n1\n'),
        ("SELECT {x:UInt8} -- a comment", None, {"param_x": "7"}, b"7\n"),
        ("SELECT count() FROM usage", None, {"database": "default"}, b"40\n"),
        ("SELECT $$he'redoc$$", None, {}, b"he\\'redoc\n"),
    ],
)
def test_curl_finds_what_it_knows(
    served: Analytics, sql: str, body: bytes | None, url: dict[str, str], expected: bytes
) -> None:
    response, content = ask(served, sql, body=body, headers={}, **url)
    assert (response.status, content) == (200, expected)


def test_headers_tell_format_query_and_work(served: Analytics) -> None:
    response, _ = ask(served, "SELECT count() FROM usage FORMAT JSON", query_id="mine")
    assert response.headers["X-ClickHouse-Format"] == "JSON"
    assert response.headers["X-ClickHouse-Query-Id"] == "mine"
    assert response.headers["X-ClickHouse-Timezone"] == "UTC"
    assert response.headers["Content-Type"].startswith("application/json")
    assert int(json.loads(response.headers["X-ClickHouse-Summary"])["elapsed_ns"]) > 0


def test_compressed_queries_are_read(served: Analytics) -> None:
    for encoding, body in (("gzip", gzip.compress(b"SELECT 5")), ("lz4", lz4.frame.compress(b"SELECT 5"))):
        assert ask(served, body=body, headers={"Content-Encoding": encoding})[1] == b"5\n"


def test_ping_and_an_empty_question_are_ok(served: Analytics) -> None:
    assert ask(served)[1] == b"Ok.\n"
    connection = HTTPConnection("127.0.0.1", served.ports["clickhouse"], timeout=5)
    connection.request("GET", "/ping")
    assert connection.getresponse().read() == b"Ok.\n"
    connection.close()


def test_errors_speak_as_clickhouse_does(served: Analytics) -> None:
    for sql, status, code in (("SELEC 1", 400, "62"), ("SELECT * FROM nothing", 404, "60"), ("SELECT x", 404, "47")):
        response, content = ask(served, sql)
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (status, code)
        assert content.startswith(f"Code: {code}. DB::Exception: ".encode())
    with pytest.raises(DatabaseError, match="nothing"):
        served.client().query("SELECT * FROM nothing")


HOSTILE = [
    "INSERT INTO usage_v1 (event_id) VALUES ('x')",
    "DROP TABLE usage_v1",
    "ALTER TABLE usage_v1 DELETE WHERE 1",
    "TRUNCATE TABLE usage_v1",
    "CREATE TABLE x (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a Int8)",
    "SELECT 1; DROP TABLE usage_v1",
    "SELECT 1 INTO OUTFILE '{path}'",
    "SELECT 1 INTO/**/OUTFILE '{path}' TRUNCATE",
    "SELECT file('{secret}')",
    "SELECT `f\\x69le`('{secret}')",
    "SELECT \"file\"('{secret}')",
    "SELECT * APPLY(file) FROM (SELECT '{secret}' AS a)",
    "SELECT COLUMNS('a') APPLY(x -> file(x)) FROM (SELECT '{secret}' AS a)",
    "SELECT arrayMap(x -> file(x), ['{secret}'])",
    "WITH (SELECT file('{secret}')) AS s SELECT s",
    "SELECT * FROM file('{secret}', 'LineAsString')",
    "DESCRIBE TABLE file('{secret}')",
    "EXPLAIN PLAN SELECT * FROM file('{secret}', 'LineAsString')",
    "SELECT * FROM view(SELECT * FROM file('{secret}', 'LineAsString'))",
    "SELECT * FROM `{secret}`",
    "SELECT * FROM default.`{secret}`",
    "DESCRIBE TABLE default.`{secret}`",
    "SELECT * FROM {{t:Identifier}}",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', 'system.one')",
    "SELECT * FROM s3('http://127.0.0.1:1/b/x', 'CSV', 'a String')",
    "SELECT * FROM executable('x', 'TSV', 'a String')",
    "SELECT * FROM sqlite('{secret}', 'x')",
    "SELECT * FROM Python(settings)",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM merge('sluicegate', '.*')",
    "SELECT * FROM filesystem('/')",
    "SELECT hasColumnInTable('127.0.0.1', 'a', 'b', 'c')",
    "SELECT sleep(3)",
    "KILL QUERY WHERE 1",
    "SYSTEM FLUSH LOGS",
    "BACKUP TABLE usage_v1 TO File('{path}')",
    "SET readonly = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 PARALLEL WITH DROP TABLE usage_v1",
    "ATTACH TABLE x FROM '{path}' (a Int8) ENGINE = MergeTree ORDER BY a",
    "CREATE FUNCTION f AS (x) -> x",
    "GRANT ALL ON *.* TO default",
    "SELECT * FROM usage FORMAT Template SETTINGS format_template_row = '{secret}'",
    "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'a', 'b', 'c', 'd') PARTITION BY x",
]


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_hostile_query_neither_writes_nor_reads_files_nor_leaves_the_machine(
    served: Analytics, sql: str, tmp_path: Path
) -> None:
    secret, written = tmp_path / "secret.csv", tmp_path / "written"
    secret.write_text("hidden\n")
    sql = sql.format(path=written, secret=secret)
    for in_url, in_body in ((sql, None), ("", sql.encode())):
        response, content = ask(served, in_url, body=in_body, headers={}, param_t=f"default.`{secret}`")
        assert response.status >= 400, content
        assert b"hidden" not in content
    assert not written.exists()
    assert ask(served, "SELECT count() FROM usage")[1] == b"40\n"


@pytest.mark.parametrize(
    "url",
    [
        {"readonly": "0"},
        {"max_execution_time": "0"},
        {"max_memory_usage": "0"},
        {"session_id": "s", "session_timeout": "60"},
    ],
)
def test_the_url_lifts_no_limit(served: Analytics, url: dict[str, str]) -> None:
    sql = "SELECT getSetting('readonly'), getSetting('max_execution_time'), getSetting('max_memory_usage')"
    response, content = ask(served, sql, body=None, headers={}, **url)
    assert (response.status, content) == (200, b"1\t2\t536870912\n")


def test_settings_that_shape_the_answer_may_be_chosen_and_others_not(served: Analytics) -> None:
    assert ask(served, "SELECT 1 AS x FORMAT JSONEachRow", output_format_json_quote_64bit_integers="1")[0].status == 200
    response, content = ask(served, "SELECT 1", format_schema="/etc/passwd")
    assert (response.status, content[:10]) == (403, b"Code: 164.")


def test_a_query_that_would_run_for_ever_ends_and_holds_up_nobody(served: Analytics) -> None:
    endless = HTTPConnection("127.0.0.1", served.ports["clickhouse"], timeout=30)
    endless.request("POST", "/", body="SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1")
    assert ask(served, "SELECT 1")[1] == b"1\n"
    response = endless.getresponse()
    assert response.headers["X-ClickHouse-Exception-Code"] == "159"
    endless.close()


def test_a_query_that_asks_for_too_much_memory_or_answers_too_much_is_refused(served: Analytics) -> None:
    response, _ = ask(served, "SELECT groupArray(number), groupArray(toString(number)) FROM numbers(1000000000)")
    assert response.headers["X-ClickHouse-Exception-Code"] in ("241", "159")
    response, _ = ask(served, "SELECT number, randomString(1000) FROM numbers(10000000)")
    assert response.headers["X-ClickHouse-Exception-Code"] in ("396", "241", "159")


def test_a_web_page_of_another_origin_is_refused(served: Analytics) -> None:
    for headers in (
        {"Host": "evil.example:8123"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        response, content = ask(served, "SELECT 1", headers=headers)
        assert response.status == 403
        assert content != b"1\n"
    assert ask(served, "SELECT 1", headers={"Host": "localhost"})[0].status == 200


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"SELECT 1", {"Content-Encoding": "gzip"}),
        (b"SELECT 1", {"Content-Encoding": "zstd"}),
        (b"x", {"Content-Type": "multipart/form-data"}),
        (b"x", {"Content-Type": "multipart/form-data; boundary=b"}),
        (b"--b\r\nfoo", {"Content-Type": "multipart/form-data; boundary=b"}),
        (
            b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\n\xff\r\n--b--',
            {"Content-Type": "multipart/form-data; boundary=b"},
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="query"\r\nContent-Transfer-Encoding: zz\r\n\r\n1\r\n--b--',
            {"Content-Type": "multipart/form-data; boundary=b"},
        ),
    ],
)  # fmt: skip
def test_a_body_that_is_not_what_its_headers_say_is_the_client_s_mistake(
    served: Analytics, body: bytes, headers: dict[str, str]
) -> None:
    response, _ = ask(served, body=body, headers=headers)
    assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (400, "36")


def test_a_query_s_id_cannot_add_a_header(served: Analytics) -> None:
    response, content = ask(served, "SELECT 1", query_id="a\r\nX-Evil: 1")
    assert (response.status, content) == (200, b"1\n")
    assert response.headers["X-ClickHouse-Query-Id"] == "a??X-Evil: 1"
    assert "X-Evil" not in response.headers


def test_commands_and_data_frames_free_paths_of_the_client_work(served: Analytics) -> None:
    client = served.client(database="sluicegate")
    assert client.ping()
    assert client.command("SELECT count() FROM usage") == 40
    assert client.raw_query("SELECT 1 AS x", fmt="JSONEachRow") == b'{"x":1}\n'
    assert "usage" in str(client.command("SHOW TABLES"))
    with client.query_row_block_stream("SELECT number FROM numbers(100000)") as stream:
        assert sum(len(block) for block in stream) == 100_000
    long = "x" * 50_000
    assert client.query("SELECT length({s:String})", parameters={"s": long}).result_rows == [(50_000,)]


async def test_a_server_is_reached_by_its_url_and_its_refusals_are_unavailable(served: Analytics) -> None:
    settings = Settings(clickhouse_url=f"http://127.0.0.1:{served.ports['clickhouse']}", clickhouse_user="default")
    async with open_database(settings) as database:
        assert [tuple(row) for row in await database.rows("SELECT count() FROM usage")] == [(40,)]
        with pytest.raises(Unavailable):
            await database.command("DROP TABLE usage_v1")
