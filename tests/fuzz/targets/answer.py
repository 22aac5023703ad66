"""What providers send. The same for every split; what is complete is what h11 sees; the client gets exactly one answer."""

import asyncio

import h11
import msgspec

from services.edge.core.extension import Course
from services.edge.core.formats import FORMATS
from services.edge.core.headers import index, response_headers_for_client
from services.edge.core.meter import Meter, meter_for
from services.edge.handlers.relay import Relay, Stop
from services.edge.handlers.request import Head as Asked
from services.edge.handlers.responder import Headers, Responder
from services.edge.settings import Settings
from services.edge.stores.upstream import Head, UpstreamConnection
from tests.fixtures.exchanges import ASKED, parse
from tests.fixtures.played import PlayedTransport, arrive, played_loop
from tests.fixtures.strict import Answers, Told
from tests.fuzz.splits import split

ASK = Asked(method="POST", path="/", headers=[], http_1_0=False, keep_alive=True, expects_continue=False, length=0)
SETTINGS = Settings()
NO_COURSE: Course | None = None


class Came(msgspec.Struct):
    """An answer as its receiver was told. end: ended, lost, or empty while it goes on."""

    heads: list[Head] = []
    body: bytes = b""
    end: str = ""

    def head(self, head: Head) -> None:
        assert not self.heads and not self.end
        self.heads.append(head)

    def data(self, data: bytes) -> None:
        assert self.heads and not self.end and data
        self.body += data

    def ended(self) -> None:
        assert self.heads and not self.end
        self.end = "ended"

    def lost(self, reason: str) -> None:
        assert not self.end
        self.end = "lost"


class Pool:
    """Takes a connection back (`connection.Owner`)."""

    def __init__(self) -> None:
        self.back = 0

    def free(self, connection: UpstreamConnection) -> None:
        self.back += 1

    def gone(self, connection: UpstreamConnection) -> None:
        """It is not kept."""


def check(data: bytes) -> None:
    with played_loop():
        whole, reusable = received([data])
        assert received(split(data))[0] == whole
    same_to_another(data, whole, reusable)
    reaches_the_client(data, whole)


def received(parts: list[bytes]) -> tuple[Came, bool]:
    """The answer in these bytes, behind which the connection closes, and whether it was kept for another request."""
    came, pool = Came(), Pool()
    connection, transport = UpstreamConnection(pool), PlayedTransport()
    connection.connection_made(transport)
    connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", came)
    for part in parts:
        if not transport.closed:
            arrive(connection, part)
    connection.connection_lost(None)
    return came, pool.back > 0


def same_to_another(data: bytes, whole: Came, reusable: bool) -> None:
    """What we take for complete, h11 takes for the same; a connection is kept only where nothing is behind the answer."""
    if whole.end != "ended":
        return
    other = Answers()
    other.asked("POST")
    other.feed(data.lstrip(b"\r\n"))
    try:
        told = other.next()
        if told is None:
            other.feed(b"")
            told = other.next()
    except h11.RemoteProtocolError as error:
        assert is_tolerated(str(error), data), f"we see a whole answer, another reader does not: {error}"
        return
    assert told is not None
    [head] = whole.heads
    headers = [(name, h11_writes(name, value.strip(b" \t"))) for name, value in head.headers]
    assert (told.status, told.body) == (head.status, whole.body)
    assert told.headers == headers
    assert not reusable or other.rest.strip(b"\r\n") == b""  # which our parser skips, as RFC 9112 2.2 has it


def is_tolerated(error: str, data: bytes) -> bool:
    """What h11 does not take: empty lines and CR between answers, sizes of more than twenty digits, odd framing in trailers.

    Nobody reads our trailers, and in a head the last one is refused by us too.
    """
    chunked = data.lower().count(b"transfer-encoding:") > 1
    return (
        "no response line" in error
        or "illegal status line: bytearray(b'\\r" in error
        or ("illegal chunk header" in error and b"0" * 15 in data)
        or (chunked and ("Transfer-Encoding" in error or "Content-Length" in error))
    )


def h11_writes(name: bytes, value: bytes) -> bytes:
    return value.lower() if name.lower() == b"transfer-encoding" else value


class Watching:
    """What an attempt does for its relay (`relay.Watch`)."""

    def __init__(self) -> None:
        self.relay: Relay | None = None

    def answering(self, head: Head) -> tuple[Meter, bool]:
        kind = index(head.headers).get(b"content-type", b"")
        return meter_for(kind, head.status, ASKED), head.status == 200 and kind.lower().startswith(b"text/event-stream")

    def headers(self, head: Head) -> Headers:
        return response_headers_for_client(head.headers, "req_1", [(b"x-sluicegate-request-id", b"req_1")])

    def seen(self, meter: Meter) -> None:
        """Nothing is written down here."""

    def reached(self, meter: Meter) -> None:
        """There is no hold."""


class Line:
    """The client's connection (`responder.Connection`)."""

    closing = False

    def __init__(self) -> None:
        self.ends: list[str] = []

    def answered(self, keep: bool) -> None:
        self.ends.append("answered")

    def broken(self) -> None:
        self.ends.append("broken")


def reaches_the_client(data: bytes, whole: Came) -> None:
    """Through the relay: one answer with the provider's body, or a stream that ends as a stream has to."""
    with played_loop() as loop:
        line, down, up = Line(), PlayedTransport(), PlayedTransport()
        responder, watch = Responder(line, down, ASK, asyncio.get_running_loop()), Watching()
        relay = Relay(responder, FORMATS["anthropic"], watch, SETTINGS, NO_COURSE)
        connection = UpstreamConnection(Pool())
        connection.connection_made(up)
        relay.attach(connection)
        connection.send(b"POST / HTTP/1.1\r\n\r\n", b"", relay)
        for part in split(data):
            if not up.closed:
                arrive(connection, part)
                loop.turn()
        connection.connection_lost(None)
        loop.turn()
        began = finish(relay)
        relay.close()
    if not began:
        assert not down.sent, "a refusal can still go out"
        return
    assert line.ends == (["broken"] if not relay.streaming and whole.end == "lost" else ["answered"])
    if line.ends == ["answered"]:
        judge(bytes(down.sent), whole, relay.streaming)


def finish(relay: Relay) -> bool:
    """As an attempt does. Whether the client has an answer."""
    assert relay.done.done()
    if relay.done.result() is Stop.ENDED:
        relay.release()
        return True
    return relay.break_off("api_error", "It broke.", "req_1")


def judge(sent: bytes, whole: Came, streaming: bool) -> None:
    other = Answers()
    other.asked("POST")
    other.feed(sent)
    told = other.next()
    assert told is not None and other.rest == b"", "not exactly one answer"
    [head] = whole.heads
    assert (told.status, told.reason) == (head.status, head.reason)
    if told.body == whole.body:
        return
    assert streaming, "the body is not the provider's"
    check_end(told, whole)


def check_end(told: Told, whole: Came) -> None:
    """The provider's bytes, but for an event that was cut, and an error behind them."""
    complete = whole.body[: whole.body.rfind(b"\n\n") + 2] if b"\n\n" in whole.body else b""
    if b"\r" not in whole.body:
        assert told.body.startswith(complete)
    if is_text(told.body):
        assert parse(told.body)[-1][0] == "error"


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
