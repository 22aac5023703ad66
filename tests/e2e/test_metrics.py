"""/metrics of every service."""

import asyncio
import time

import aiohttp
from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shared.exposition import SLICE, exposition
from shared.service import new_app

SERIES = 2_000
"""Written in one go they stop the loop for 15 ms."""


async def test_a_scrape_stops_the_loop_for_less_than_10_ms() -> None:
    counter = Counter("test_scrape_total", "Many.", ["label"])
    for number in range(SERIES):
        counter.labels(f"value-{number}").inc()
    runner = web.AppRunner(new_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    try:
        async with aiohttp.ClientSession() as session:
            pauses = [await longest_pause(session, url) for _ in range(10)]
    finally:
        REGISTRY.unregister(counter)
        await runner.cleanup()
    assert sorted(pauses)[len(pauses) // 2] < 0.010, "a collection of garbage may fall into one"


async def test_a_scrape_in_slices_reads_as_one_in_a_piece() -> None:
    registry = CollectorRegistry()
    counter = Counter("many_total", 'With "quotes", \\ and\nlines.', ["label"], registry=registry)
    histogram = Histogram("times", "Seconds.", ["label"], registry=registry)
    Gauge("none", "Without a series.", ["label"], registry=registry)
    Gauge("one", "Alone.", registry=registry).set(2)
    for number in range(SLICE + 1):
        counter.labels(f'"value"\n{number}').inc(number)
        histogram.labels(str(number)).observe(number)
    assert await exposition(registry) == generate_latest(registry)


async def longest_pause(session: aiohttp.ClientSession, url: str) -> float:
    """Of the loop during one scrape, seconds of work: others use this machine too."""

    async def scrape() -> bytes:
        async with session.get(url) as answer:
            return await answer.read()

    scraping, longest = asyncio.create_task(scrape()), 0.0
    while not scraping.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - before)
    assert scraping.result().count(b"test_scrape_total{") == SERIES
    return longest
