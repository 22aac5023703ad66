"""One client connection: reads requests, lets one at a time run, keeps the rest waiting, notices when the client is gone."""

import asyncio
import socket
import struct
import sys
from collections import deque
from typing import Protocol, cast

from services.edge.handlers.request import Head, Limits, Request, RequestReader, Room
from services.edge.handlers.responder import CONTINUE, Responder
from shared.errors import Rejected

AHEAD_BYTES = 64 * 1024
"""How much of later requests is kept, unread, while one runs."""
WRITE_HIGH, WRITE_LOW = 64 * 1024, 16 * 1024
PIPELINED_MOST = 32
LINGER_SECONDS = 5.0
"""After a refusal, what the client is still sending is read and dropped, or a reset would destroy our answer to it."""
PEER_CHECKS = (0.01, 0.02, 0.04, 0.08, 0.25, 1.0)
"""Seconds between looks at a half-closed peer; the last one repeats."""
_TCP_CLOSE = 7


class Timeouts(Protocol):
    """Seconds; read from the edge's settings."""

    @property
    def header_timeout_seconds(self) -> float: ...
    @property
    def body_idle_timeout_seconds(self) -> float: ...
    @property
    def keep_alive_timeout_seconds(self) -> float: ...
    @property
    def write_idle_timeout_seconds(self) -> float: ...


class Handler(Protocol):
    """What runs requests, and words the refusal of bytes that never became one."""

    def serve(self, request: Request, responder: Responder) -> None: ...
    def refuse(self, error: Rejected, responder: Responder) -> None: ...


class Host(Protocol):
    """The server that a connection belongs to."""

    timeouts: Timeouts
    limits: Limits
    room: Room
    handler: Handler

    @property
    def draining(self) -> bool: ...
    def opened(self, connection: "ClientConnection") -> bool: ...
    def closed(self, connection: "ClientConnection") -> None: ...


class ClientConnection(asyncio.Protocol):
    """States: reading (no `_running`), answering (`_running`), lingering (answered for good, dropping input)."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(host.limits, self._head_read, self._request_read, host.room)
        self._transport: asyncio.Transport | None = None
        self._running: Responder | None = None
        self._queue: deque[Request] = deque()
        self._ahead = bytearray()
        self._refusal: Rejected | None = None
        self._half_closed = False
        self._lingering = False
        self._unread = False  # the client does not read: its kernel and ours are full of answers
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._checks = 0
        self._continue_due = False
        self._deadline_is_for_head = (
            True  # it runs from the first byte of a head; for the first one from the connection
        )

    @property
    def closing(self) -> bool:
        """No further request will be read after the running one."""
        return self._host.draining or (self._half_closed and not self._queue and not self._ahead)

    @property
    def idle(self) -> bool:
        return self._running is None and not self._queue and not self._reader.begun

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        if not self._host.opened(self):
            self._transport.abort()
            return
        self._wait(self._host.timeouts.header_timeout_seconds)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._running is not None or self._queue or self._ahead or self._unread:
            self._ahead += data
            if len(self._ahead) > AHEAD_BYTES and self._transport:
                self._transport.pause_reading()
            return
        self._feed(data)

    def eof_received(self) -> bool:
        """A client may close its side and still read; whether it does is found out by probing. Over TLS it may not."""
        if self._transport is None or self._transport.get_extra_info("ssl_object") is not None:
            self.abort() if self._running else self._close()
            return False
        self._half_closed = True
        if self._running is None and not self._queue and not self._ahead:
            self._close()
        else:
            self._probe()
        return True

    def pause_writing(self) -> None:
        self._unread = True
        if self._running and self._running.exchange:
            self._running.exchange.client_slow()

    def resume_writing(self) -> None:
        self._unread = False
        if self._running is None:
            self._waits_for_request()
        elif self._running.exchange:
            self._running.exchange.client_ready()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._queue.clear()
        self._ahead.clear()
        running, self._running = self._running, None
        self._transport = None
        self._host.closed(self)
        if running:
            running.gone = True
            if running.exchange:
                running.exchange.client_gone()
                running.exchange = None
        self._refusal = None
        self._reader.close()

    # What the reader calls.

    def _head_read(self, head: Head) -> None:
        self._continue_due = head.expects_continue and head.length != 0

    def _request_read(self, request: Request) -> None:
        self._queue.append(request)
        if len(self._queue) > PIPELINED_MOST:
            self._reader.refuse(Rejected("invalid_request_error", "too many requests sent ahead", 400))

    # What the responder calls.

    def answered(self, keep: bool) -> None:
        self._running = None
        if not self._queue and not self._reader.begun:
            self._reader.answered()
        if not keep or self._transport is None:
            self._linger()
            return
        if self._unread:  # no further answer before this one is read, or answers would pile up here
            self._wait(self._host.timeouts.write_idle_timeout_seconds)
        else:
            self._waits_for_request()

    def broken(self) -> None:
        if self._transport:
            self._transport.abort()

    # The rest.

    def _waits_for_request(self) -> None:
        if not self._queue:
            self._wait(self._host.timeouts.keep_alive_timeout_seconds)
        if self._queue or self._ahead or self._refusal or self.closing or self._reader.begun:
            self._loop.call_soon(self._next)  # not from within the answer before: a pipeline must not grow the stack

    def _feed(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except Rejected as error:
            self._refusal = error
        self._next()

    def _next(self) -> None:
        """Start the next request, read what came ahead, or wait."""
        if self._running or self._transport is None or self._lingering or self._unread:
            return
        if self._queue:
            self._run(self._queue.popleft())
        elif self._refusal:
            self._refuse(self._refusal)
        elif self._ahead:
            data = bytes(self._ahead)
            self._ahead.clear()
            self._transport.resume_reading()
            self._feed(data)
        elif self._half_closed or (self._host.draining and not self._reader.begun):
            self._close()
        elif not self._reader.in_head:
            if self._continue_due:
                self._continue_due = False
                self._transport.write(CONTINUE)
            self._wait(self._host.timeouts.body_idle_timeout_seconds)
        elif self._reader.begun and not self._deadline_is_for_head:
            self._wait(self._host.timeouts.header_timeout_seconds)
            self._deadline_is_for_head = True

    def _run(self, request: Request) -> None:
        assert self._transport is not None
        self._deadline, self._deadline_is_for_head = 0.0, False
        self._running = Responder(self, self._transport, request.head, self._loop)
        self._host.handler.serve(request, self._running)

    def _refuse(self, error: Rejected) -> None:
        """Answer bytes that are no request, then close."""
        assert self._transport is not None
        head = Head(
            method="GET",
            path="",
            headers=[],
            http_1_0=False,
            keep_alive=False,
            expects_continue=False,
            length=0,
        )
        self._running = Responder(self, self._transport, head, self._loop)
        self._host.handler.refuse(error, self._running)

    def _linger(self) -> None:
        """Close; where the client may still be sending, wait for it to do the same, dropping what comes."""
        transport = self._transport
        if transport is None or self._lingering:
            return
        self._lingering = True
        sending = self._refusal or self._ahead or self._reader.begun
        if not sending or self._half_closed or not transport.can_write_eof():
            self._close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._wait(LINGER_SECONDS)

    def _close(self) -> None:
        """When what was written is read; a client that never reads it is not waited for for ever."""
        self._lingering = True
        if self._transport:
            self._transport.close()
            self._wait(self._host.timeouts.write_idle_timeout_seconds)

    def drain(self) -> None:
        """Close now if nothing runs; else the running answer is the last."""
        if self.idle and self._transport:
            self._transport.close()

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    # Time limits: one timer per connection that looks at the deadline when it fires, instead of one per request.

    def _wait(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._deadline or self._transport is None:
            return
        if self._deadline > self._loop.time() + 0.001:
            self._timer = self._loop.call_at(self._deadline, self._tick)
        elif self._lingering or self._unread:
            self._transport.abort()
        elif self._reader.begun:
            part = "head" if self._reader.in_head else "body"
            self._refusal = Rejected("invalid_request_error", f"the request's {part} did not arrive in time", 408)
            self._refuse(self._refusal)
        else:
            self._close()

    def _probe(self) -> None:
        """Find out whether a client that closed its side still reads: a closed one answers bytes with a reset."""
        if self._running:
            self._running.probe()
        self._look()

    def _look(self) -> None:
        if self._transport is None or self._lingering:
            return
        if _peer_closed(self._transport):
            self._transport.abort()
            return
        pause = PEER_CHECKS[min(self._checks, len(PEER_CHECKS) - 1)]
        self._checks += 1
        self._loop.call_later(pause, self._look)


def _peer_closed(transport: asyncio.Transport) -> bool:
    """Whether the kernel has heard a reset. Where it cannot be asked, a client that closed its side counts as gone."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return True
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    except OSError:
        return True
    return bool(struct.unpack_from("B", info)[0] == _TCP_CLOSE)
