"""The provider of the benchmarks: answers from memory, so that the gateway in front of it is what is measured.

`/v1/messages` with `"stream":true` near its start gets 200 events in one burst, else 1 kB of JSON.
A process of its own; prints its port.
"""

import asyncio
import sys

import httptools
import uvloop

EVENTS = 200


def stream() -> bytes:
    """An answer of 200 text deltas in the provider's framing, one chunk per event as a provider sends them."""
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message",'
        b'"role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":20000,"cache_read_input_tokens":5,"output_tokens":1}}}\n\n'
    )
    opened = (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
    )
    delta = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"a few words %3d"}}\n\n'
    )
    ends = (
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"output_tokens":900}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    )
    events = [start, opened, *(delta % number for number in range(EVENTS - 5)), *ends]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_up\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


def message() -> bytes:
    """1 kB of JSON."""
    body = (
        b'{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[{"type":"text",'
        b'"text":"%s"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":200,"output_tokens":180}}'
    ) % (b"word " * 160)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_up\r\ncontent-length: %d\r\n\r\n%b"
        % (
            len(body),
            body,
        )
    )


STREAM, MESSAGE = stream(), message()


class Provider(asyncio.Protocol):
    """Reads requests, answers each at once."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._streams = False
        self._first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._streams, self._first = False, True

    def on_body(self, part: bytes) -> None:
        if self._first:
            self._first = False
            self._streams = b'"stream":true' in part[:200]

    def on_message_complete(self) -> None:
        self._transport.write(STREAM if self._streams else MESSAGE)  # type: ignore[attr-defined]  # uvloop's TCP transport


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
