"""The arithmetic of the benchmarks: what is counted, divided, compared and drawn. Nothing here is timed."""

import json
import math
import os
import subprocess
import sys
import time
from xml.etree import ElementTree

import httptools
import msgspec
import pytest

from tests.bench import accounting, chart, page, provider, requests, results, table
from tests.bench.compare import compare, lines
from tests.bench.figures import figures
from tests.bench.load import percentile
from tests.bench.results import CaseResult, Figure, Held, Measured, Result

TEXT = "{http://www.w3.org/2000/svg}text"


def measured(cpu_us: float, **changes: object) -> Measured:
    made = Measured(requests=1000, seconds=1, cpu_us=cpu_us, ttfb_p50_ms=1, ttfb_p99_ms=2)
    return msgspec.structs.replace(made, **changes)


def edge(cpu_us: float, **changes: object) -> Measured:
    return measured(cpu_us, by_process={"edge": cpu_us, "nats": 300, "budget": 200}, **changes)


def result(*edges: float, held: Held | None = None) -> Result:
    """Rounds of the 75 kB case in which nginx takes 100 µs, TensorZero 5,000 in the first."""
    rounds = [{"nginx": measured(100), "wire": measured(110), "edge": edge(cpu_us)} for cpu_us in edges]
    rounds[0]["tensorzero"] = measured(5000)
    first = [{"direct": measured(0), "edge": edge(0, ttfb_p50_ms=1.5, ttfb_p99_ms=9)} for _ in edges]
    cases = {
        "stream": CaseResult(what="75 kB", unit="request", rounds=rounds),
        "first_byte": CaseResult(what="first byte", unit="request", rounds=first),
    }
    if held:
        cases["open"] = CaseResult(what="open", unit="stream", held={"direct": held, "edge": held})
    made = Result(
        at="2026-11-21T12:00:00.000000Z",
        commit="0123456789",
        changed=False,
        seconds=1,
        options={},
        machine={
            "cores": 2,
            "model": "Processor <1>",
            "memory_gb": 25,
            "kernel": "Linux",
            "filesystem": "ext4",
            "load_average": 0.1,
        },
        versions={"python": "3.11"},
        accounting="",
        gateways={name: f"what {name} is" for name in ("direct", "nginx", "wire", "edge", "tensorzero")},
        absent={"litellm": "it did not install"},
        cases=cases,
        idle_cpu_us_per_second={"edge": 1000},
        rest_mb={"edge": 54},
        after_mb={"edge": 90},
    )
    made.figures = figures(made)
    return made


def named(result: Result) -> dict[str, Figure]:
    return {figure.name: figure for figure in result.figures}


def test_the_kernels_clock_of_another_process_counts_what_it_burns() -> None:
    burn = "import sys\nfor _ in range(3_000_000): pass\nprint(flush=True)\nsys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin
    assert child.stdout
    processes = {"child": [child.pid]}
    before = accounting.used(processes)
    child.stdout.readline()
    spent = accounting.spent(processes, before, accounting.used(processes))
    assert child.pid in accounting.family(os.getpid())
    assert accounting.resident_bytes(child.pid) > 1_000_000
    child.communicate()
    assert spent["child"] > 0
    assert accounting.used(processes) == {}
    own = accounting.cpu_ns(os.getpid())
    assert math.isclose(own, time.process_time_ns(), rel_tol=0.2)


def test_a_process_that_came_counts_whole_and_one_that_went_not_at_all() -> None:
    processes = {"one": [1, 2], "two": [3]}
    assert accounting.spent(processes, {1: 100, 3: 50}, {1: 150, 2: 7}) == {"one": 57, "two": 0}


def test_ratios_are_taken_within_a_round_and_told_with_their_spread() -> None:
    found = named(result(200, 300, 220))
    ratio = found["stream.edge_to_nginx"]
    assert (ratio.value, ratio.low, ratio.high, ratio.met) == (2.2, 2.0, 3.0, True)
    assert found["stream.wire_to_nginx"].value == 1.1
    assert found["stream.all_to_nginx"].value == 7.2
    assert found["stream.tensorzero_to_edge"].value == 25  # of the round that it took part in
    assert found["stream.tensorzero_to_edge"].met
    assert "stream.litellm_to_edge" not in found
    assert (found["first_byte.p50"].value, found["first_byte.p99"].value) == (0.5, 7.0)
    assert found["first_byte.p99"].met is False
    assert found["memory.rest"].value == 54


def test_memory_is_what_came_with_the_streams_over_their_number() -> None:
    held = Held(
        streams=5000,
        whole=5000,
        chunks=1,
        delay_p50_ms=1,
        delay_p99_ms=12,
        delay_most_ms=30,
        resident_before=50_000_000,
        resident_open=150_000_000,
        opened_in_seconds=3,
    )
    found = named(result(200, held=held))
    assert (found["open.edge.memory"].value, found["open.edge.memory"].unit) == (20.0, "kB")
    assert found["open.edge.delay"].met
    assert "open.direct.memory" not in found


def test_only_what_got_worse_by_more_than_the_rounds_differ_is_marked() -> None:
    def verdict(name: str, old: Result, new: Result) -> str:
        return next(change.verdict for change in compare(old, new) if change.name == name)

    old = result(200, 220, 240)
    assert verdict("stream.edge", old, result(230, 240, 250)) == ""
    assert verdict("stream.edge", old, result(290, 300, 310)) == "worse"
    assert verdict("stream.edge", old, result(100, 110, 120)) == "better"
    assert verdict("stream.tensorzero_to_edge", old, result(500, 500, 500)) == "worse", "it was to be at least that"
    assert verdict("memory.rest", old, msgspec.structs.replace(old, figures=[])) == "gone"
    assert "worse" in "\n".join(lines(compare(old, result(290, 300, 310))))


def test_the_picture_is_well_formed_and_names_whoever_was_measured() -> None:
    drawn = chart.draw(result(200, 220))
    texts = [element.text for element in ElementTree.fromstring(drawn).iter(TEXT)]  # noqa: S314  # ours
    assert {"nginx", "edge, everything on", "TensorZero", "budget", "210", "5,000"} <= set(texts)
    assert "LiteLLM" not in texts
    assert "prefers-color-scheme: dark" in drawn


def test_who_could_not_be_measured_is_named() -> None:
    assert "Not measured: LiteLLM (it did not install)." in table.where(result(200))


def test_the_page_and_its_picture_are_those_of_the_result_that_it_names() -> None:
    text = page.PAGE.read_text()
    path = page.named(text)
    shown = results.read(path)
    assert page.filled(text, path.name, shown) == text
    assert chart.PICTURE.read_text() == chart.draw(shown)
    again = figures(msgspec.structs.replace(shown, figures=[]))
    assert again == shown.figures, "the figures are not what the rounds say"


@pytest.mark.parametrize("shape", requests.SHAPES)
@pytest.mark.parametrize(("size", "streams"), [(75_000, True), (1_000, False)])
def test_bodies_have_the_size_they_are_called_by(shape: str, size: int, streams: bool) -> None:
    head, _, body = requests.request(shape, "vk-x", streams, size).partition(b"\r\n\r\n")
    assert len(body) == size
    assert json.loads(body)["stream"] is streams
    assert b"Content-Length: %d" % size in head


class Reader:
    """Collects one answer."""

    def __init__(self) -> None:
        self.body, self.chunks, self.complete = b"", 0, False

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_chunk_header(self) -> None:
        self.chunks += 1

    def on_message_complete(self) -> None:
        self.complete = True


@pytest.mark.parametrize(("answer", "streams"), [(provider.STREAM, True), (provider.MESSAGE, False)])
def test_the_provider_says_what_it_is_said_to(answer: bytes, streams: bool) -> None:
    reader = Reader()
    httptools.HttpResponseParser(reader).feed_data(answer)
    assert reader.complete
    assert requests.whole(streams, reader.body)
    assert not requests.whole(streams, reader.body[:-50])
    if streams:
        assert reader.body.count(b"event: ") == 200
    else:
        assert json.loads(reader.body)["usage"]
        assert 900 < len(reader.body) < 1100


def test_percentiles_are_of_the_times_in_order() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([0.001], 0.99) == 1
    assert percentile([number / 1000 for number in range(100)], 0.99) == 99
