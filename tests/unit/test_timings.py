"""A histogram of ours tells what the library's own would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shared.telemetry import SECONDS
from shared.timings import Timings


def told(registry: CollectorRegistry) -> list[bytes]:
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


@given(st.lists(st.one_of(st.sampled_from(SECONDS), st.integers(0, 10_000_000).map(lambda n: n / 4096)), max_size=50))
def test_the_exposition_is_that_of_the_librarys_histogram(seconds: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    timings = Timings("took_seconds", "How long.", SECONDS, ours)
    histogram = Histogram("took_seconds", "How long.", buckets=SECONDS, registry=theirs)
    for each in seconds:
        timings.observe(each)
        histogram.observe(each)
    assert told(ours) == told(theirs)
