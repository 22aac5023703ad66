"""The same bytes to the provider itself and through the edge: what it was asked and what it answered must be equal.

Provider and client are h11, which shares nothing with the edge. The lists of what may differ are written here anew.
"""

import asyncio
import os
import random

import pytest

from tests.fixtures import organisation
from tests.fixtures.edge import Edge, edge, start_edge
from tests.fixtures.odd import Case, case, pieces
from tests.fixtures.strict import Asked, Headers, Provider, Told, talk
from tests.fixtures.upstream import upstream

__all__ = ["edge", "start_edge", "upstream"]  # fixtures

CASES = 1000
FIRST = int(os.environ.get("DIFFERENTIAL_FIRST", "0"))
"""Another number for a look at other cases."""
AT_ONCE = 32
NOT_UP = {b"host", b"authorization", b"x-api-key", b"cookie", b"accept-encoding", b"connection", b"keep-alive", b"te"}
NOT_UP |= {b"expect", b"content-length", b"transfer-encoding"}
NOT_DOWN = {b"connection", b"keep-alive", b"content-length", b"transfer-encoding", b"set-cookie"}
ADDED = {b"x-accel-buffering", b"x-sluicegate-request-id"}


def conversations(cases: list[Case]) -> list[list[Case]]:
    """One to four cases each, to be sent ahead on one connection; one that waits, or whose provider hangs up, is the last."""
    rng, found = random.Random(7), list[list[Case]]()
    room = 0
    for each in cases:
        if room == 0:
            found.append([])
            room = rng.choice((1, 1, 2, 4))
        found[-1].append(each)
        room = 0 if each.waits or each.closes else room - 1
    return found


def said(cases: list[Case], port: int) -> list[bytes]:
    """The bytes of a conversation in random pieces; an empty one is a pause for the interim answer."""
    rng, found, data = random.Random(cases[0].name), list[bytes](), b""
    for each in cases:
        line, rest = each.request.split(b"\r\n", 1)
        host = b"Host: 127.0.0.1:%d\r\n" % port
        request = b"%b\r\n%b%b" % (line, host, rest)
        if each.waits:
            head = each.waits + len(host)
            found += [*pieces(rng, data + request[:head]), b""]
            data = b""
            request = request[head:]
        data += request
    return [*found, *pieces(rng, data)]


async def carried(cases: list[Case], port: int) -> dict[bytes, Told]:
    """The answer to each case."""
    few, found = asyncio.Semaphore(AT_ONCE), dict[bytes, Told]()

    async def one(together: list[Case]) -> None:
        async with few:
            told = await talk(port, said(together, port), [each.method for each in together])
        found.update(zip((each.name for each in together), told, strict=True))

    await asyncio.gather(*(one(together) for together in conversations(cases)))
    return found


def passing(headers: Headers, not_passed: set[bytes], *prefixes: bytes) -> Headers:
    named = {
        token.strip().lower() for key, value in headers if key.lower() == b"connection" for token in value.split(b",")
    }
    gone = not_passed | named
    return [
        header for header in headers if header[0].lower() not in gone and not header[0].lower().startswith(prefixes)
    ]


def same_request(direct: Asked, through: Asked, port: int) -> None:
    assert through.method == direct.method
    assert through.target == direct.target.removeprefix(b"/anthropic")
    assert through.body == direct.body
    passed = passing(direct.headers, NOT_UP, b"x-sluicegate-", b"proxy-")
    ours = [(b"accept-encoding", b"identity"), (b"x-api-key", b"sk-provider")]
    framing = [(b"Content-Length", b"%d" % len(direct.body))] if direct.method == b"POST" else []
    assert through.headers == [(b"Host", b"127.0.0.1:%d" % port), *passed, *ours, *framing]


def same_answer(direct: Told, through: Told) -> None:
    assert (through.status, through.reason, through.body) == (direct.status, direct.reason, direct.body)
    passed = passing(direct.headers, NOT_DOWN, b"x-sluicegate-", b"proxy-", b"anthropic-ratelimit-")
    got = [header for header in through.headers if header[0].lower() not in NOT_DOWN | ADDED]
    if not any(key.lower() == b"request-id" for key, _ in direct.headers):
        assert (got.pop()[0], through.header(b"x-sluicegate-request-id")) != (b"request-id", None)
    assert got == passed


@pytest.fixture
def cases() -> list[Case]:
    return [case(seed, organisation.SECRET) for seed in range(FIRST, FIRST + CASES)]


async def test_generated_exchanges_are_the_same_through_the_edge_as_without_it(edge: Edge, cases: list[Case]) -> None:
    answers = {each.name: each.answer for each in cases}
    closes = frozenset(each.name for each in cases if each.closes)
    async with Provider(answers, closes).running() as itself:
        direct = await carried(cases, itself.port)
    async with Provider(answers, closes).running() as behind:
        await edge.move_provider(f"http://127.0.0.1:{behind.port}")
        through = await carried(cases, edge.port)
    assert sorted(behind.asked) == sorted(itself.asked)
    for each in cases:
        try:
            same_request(itself.asked[each.name], behind.asked[each.name], behind.port)
            same_answer(direct[each.name], through[each.name])
        except AssertionError as error:
            raise AssertionError(f"case {each.name.decode()}: {each.method} {each.target}\n{error}") from None
    await complete(edge, cases)


async def complete(edge: Edge, cases: list[Case]) -> None:
    """Each request has its record, and each attempt its own, that says how it ended."""
    assert len(await edge.requests(len(cases))) == len(cases)
    governed = sum("/v1/messages" in each.target and "count_tokens" not in each.target for each in cases)
    usage = await edge.usage(governed)
    assert len(usage) == governed
    assert {record.outcome for record in usage} == {"ok", "upstream_error"}
