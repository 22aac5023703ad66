"""/metrics of every service."""

import asyncio

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shared.exposition import SLICE, exposition
from shared.service import new_app

SERIES = 2_000
"""Written in one go they stop the loop for 15 ms, in slices for 4 to 5."""


async def test_a_scrape_gives_the_loop_its_turn_after_each_slice() -> None:
    registry = CollectorRegistry()
    counter = Counter("test_scrape_total", "Many.", ["label"], registry=registry)
    for number in range(SERIES):
        counter.labels(f"value-{number}").inc()
    writing, turns = asyncio.create_task(exposition(registry)), 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert writing.result().count(b"test_scrape_total{") == SERIES
    assert turns >= SERIES // SLICE


async def test_a_service_answers_a_scrape() -> None:
    runner = web.AppRunner(new_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert b"python_info" in await answer.read()
    finally:
        await runner.cleanup()


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
