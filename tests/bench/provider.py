"""The provider of the benchmarks: answers from memory, so that the gateway in front of it is what is measured.

A process of its own: prints its port, then takes one line for each mode and repeats it once it is in force. The mode and not
the request decides what is answered, since gateways that translate send other requests than they got.

`burst`: 200 events in one write. `json`: 1 kB of JSON. `paced COUNT MS`: COUNT deltas, one every MS milliseconds; each
carries when it was sent, as `t=` and 19 digits (monotonic ns). `end`: all paced answers end now.
"""

import asyncio
import functools
import sys
import time
from collections.abc import Iterable
from typing import cast

import httptools
import uvloop

EVENTS = 200
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_up\r\ntransfer-encoding: chunked\r\n\r\n"
DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"%b"}}\n\n'
)
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
    b'"role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,'
    b'"usage":{"input_tokens":%d,"cache_read_input_tokens":5,"output_tokens":1}}}\n\n'
)
INPUT_TOKENS, FEW_INPUT_TOKENS = 20_000, 200
"""Of a body of 75 kB and of 1 kB. More than the body can be would take the stream's hold, and cut it."""
OPENED = (
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
)
ENDS = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":900}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)


def chunks(events: Iterable[bytes]) -> bytes:
    """One chunk per event, as a provider sends them."""
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)


def stream() -> bytes:
    """An answer of 200 events in the provider's framing."""
    deltas = (DELTA % (b"a few words %3d" % number) for number in range(EVENTS - 2 - len(ENDS)))
    return HEAD + chunks([START % INPUT_TOKENS, OPENED, *deltas, *ENDS]) + b"0\r\n\r\n"


def message() -> bytes:
    """1 kB of JSON."""
    body = (
        b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[{"type":"text",'
        b'"text":"%s"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":200,"output_tokens":180}}'
    ) % (b"word " * 160)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_up\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


STREAM, MESSAGE = stream(), message()
BEGIN, END = HEAD + chunks([START % FEW_INPUT_TOKENS, OPENED]), chunks(ENDS) + b"0\r\n\r\n"


class Mode:
    """What is answered now."""

    def __init__(self) -> None:
        self.at_once: bytes | None = MESSAGE
        self.count, self.interval = 0, 0.0
        self.rounds_ended = 0

    def set(self, line: str) -> None:
        kind, *numbers = line.split()
        if kind == "end":
            self.rounds_ended += 1
        elif kind == "paced":
            self.at_once = None
            self.count, self.interval = int(numbers[0]), float(numbers[1]) / 1000
        else:
            self.at_once = {"burst": STREAM, "json": MESSAGE}[kind]


class Provider(asyncio.Protocol):
    """Reads requests; answers each when it is complete."""

    def __init__(self, mode: Mode) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._mode = mode
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._mode.at_once is not None:
            self._transport.write(self._mode.at_once)
        else:
            self._transport.write(BEGIN)
            self._due = asyncio.get_running_loop().time()
            self._next(self._mode.count, self._mode.rounds_ended)

    def _next(self, left: int, rounds_ended: int) -> None:
        """On time by the clock: a late chunk does not delay those after it."""
        if not left or rounds_ended != self._mode.rounds_ended:
            self._transport.write(END)
            return
        self._transport.write(chunks([DELTA % (b"t=%019d" % time.monotonic_ns())]))
        self._due += self._mode.interval
        again = functools.partial(self._next, left - 1, rounds_ended)
        self._timer = asyncio.get_running_loop().call_at(self._due, again)


async def main() -> None:
    loop, mode = asyncio.get_running_loop(), Mode()
    server = await loop.create_server(lambda: Provider(mode), "127.0.0.1", 0, backlog=1024)
    say(str(server.sockets[0].getsockname()[1]))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode().strip():
        mode.set(line)
        say(line)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
