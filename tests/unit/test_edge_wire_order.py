"""Bytes of later requests, which wait while one runs, stay in the order in which they came."""

import asyncio

from tests.fixtures.played import PlayedHost, connect
from tests.fixtures.wire import post


async def test_bytes_that_come_just_after_an_answer_stay_behind_those_that_wait() -> None:
    """Else the middle of a request is read before its beginning."""
    host = PlayedHost(at_once=False)
    connection, _ = connect(host)
    later = post("/later", b"0123456789")
    connection.data_received(post("/first", b""))
    connection.data_received(later[:50])
    host.answer()
    connection.data_received(later[50:])  # before the loop has turned to what waits
    await asyncio.sleep(0)
    assert [error.message for error in host.refused] == []
    assert [request.body for request in host.requests] == [b"", b"0123456789"]
    connection.connection_lost(None)
