"""One answer on its way from the provider to the client: relayed as it arrives, metered beside, its end kept back.

Runs in the callbacks of the two connections; the exchange awaits `done` alone. An answer that is no stream is kept
until it is complete or too large, so that a broken one can still become a proper refusal.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from services.edge.core.extension import NEVER, Course
from services.edge.core.formats import ClientFormat
from services.edge.core.meter import Meter
from services.edge.handlers.responder import Headers, Responder
from services.edge.stores.upstream import Head, UpstreamConnection

PROGRESS_SECONDS = 1.0  # so much of a stream is forgotten at most when the process is killed


class Stop(Enum):
    """Why `done`."""

    ENDED = "ended"  # the answer is complete; its last bytes are kept back
    CUT = "cut"  # the output is about to reach the hold
    BROKEN = "broken"  # upstream broke off, or was silent for too long
    UNANSWERED = "unanswered"  # upstream broke off before a byte of the answer came
    CLIENT_GONE = "client_gone"


class Times(Protocol):
    """Seconds; read from the edge's settings."""

    @property
    def heartbeat_seconds(self) -> float: ...
    @property
    def upstream_idle_timeout_seconds(self) -> float: ...
    @property
    def write_idle_timeout_seconds(self) -> float: ...
    @property
    def max_buffered_bytes(self) -> int: ...


class Watch(Protocol):
    """What the exchange is asked and told while the answer runs."""

    def answering(self, head: Head) -> tuple[Meter, bool]:
        """The meter for this answer, and whether it is a stream of events."""

    def headers(self, head: Head) -> Headers:
        """The headers that the client gets."""

    def seen(self, meter: Meter) -> None:
        """The stream has come further: when the provider has reported the input, then about once a second."""

    def reached(self, meter: Meter) -> None:
        """The output has come to the line that the course draws."""


class Relay:
    """Receives an answer (`stores.upstream.Answer`) for a client (`responder.Exchange`).

    course: None for what is neither extended nor cut. first_byte_at: of the answer's body, loop time, 0 before it.
    """

    def __init__(
        self, responder: Responder, client_format: ClientFormat, watch: Watch, times: Times, course: Course | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._responder = responder
        self._format = client_format
        self._watch = watch
        self._times = times
        self._course = course
        self.done: asyncio.Future[Stop] = self._loop.create_future()
        self.head_seen: Head | None = None
        self.meter: Meter | None = None
        self.streaming = False
        self.first_byte_at = 0.0
        self.upstream_ended = False
        self._after: Callable[[], None] | None = None
        self._connection: UpstreamConnection | None = None
        self._kept = bytearray()
        self._seen_until = 0.0
        self._heard = self._written = self._loop.time()
        self._slow_since = 0.0
        self._waiting = False
        self._timer = self._loop.call_later(times.heartbeat_seconds, self._tick)

    def attach(self, connection: UpstreamConnection) -> None:
        """The answer will come on this connection."""
        self._connection = connection
        self._heard = self._loop.time()

    # What the course of its hold demands.

    def wait(self) -> None:
        """Read no more from upstream until `go_on` or `cut`. What has come already is passed on: it has been made."""
        self._waiting = True
        if self._connection and not self.upstream_ended:
            self._connection.pause()

    def go_on(self) -> None:
        self._waiting = False
        self._heard = self._loop.time()
        if self._connection and not self.upstream_ended and not self._slow_since:
            self._connection.resume()

    def cut(self) -> None:
        self._stop(Stop.CUT)

    # What upstream says.

    def head(self, head: Head) -> None:
        self.head_seen = head
        self._heard = self._loop.time()
        self.meter, self.streaming = self._watch.answering(head)
        if self.streaming:
            # Without a length, whatever upstream says: a ping or an end of ours may come in between.
            self._responder.start(head.status, self._watch.headers(head), None, head.reason)

    def data(self, data: bytes) -> None:
        if self.meter is None:
            return
        self._heard = self._loop.time()
        if not self.first_byte_at:
            self.first_byte_at = self._heard
        if self.done.done():  # what follows the end of the stream goes the way of the end
            if self.streaming and self.done.result() is Stop.ENDED:
                if self._after:  # which is out already
                    self._responder.write(data)
                else:
                    self.meter.feed(data)
            return
        release = self.meter.feed(data)
        if not self.streaming:
            self._keep(release.data)
            return
        if release.data:
            self._responder.write(release.data)
            self._written = self._heard
        if release.ended:
            self._stop(Stop.ENDED)
            return
        if self._heard >= self._seen_until:  # of use only while the answer goes on; a burst is at its end already
            self._see(self.meter)
        self._look_ahead(self.meter)

    def ended(self) -> None:
        self.upstream_ended = True
        # A stream that ends without its last event is as broken as one that is reset: never a bare close.
        self._stop(Stop.BROKEN if self.streaming else Stop.ENDED)
        if self._after:
            self._after()

    def lost(self, reason: str) -> None:
        self.upstream_ended = True
        self._stop(Stop.BROKEN if self.head_seen else Stop.UNANSWERED)
        if self._after:
            self._after()

    # What the client does.

    def client_gone(self) -> None:
        self._stop(Stop.CLIENT_GONE)
        self.hang_up()

    def client_slow(self) -> None:
        self._slow_since = self._loop.time()
        if self._connection and not self.upstream_ended:
            self._connection.pause()

    def client_ready(self) -> None:
        self._slow_since = 0.0
        self._heard = self._loop.time()
        if self._connection and not self.upstream_ended and not self._waiting:
            self._connection.resume()

    # What the exchange does in the end.

    def hang_up(self) -> None:
        """Upstream is not to send any more."""
        if self._connection and not self.upstream_ended:
            self._connection.abort()
        self.upstream_ended = True

    def release(self) -> None:
        """The end is recorded: let the last bytes go."""
        assert self.meter is not None and self.head_seen is not None
        if not self.streaming:
            self._finish_plain(self.head_seen)
            return
        self._responder.write(self.meter.held())
        if self.upstream_ended:
            self._responder.finish()
        else:  # the last event came, the end of upstream's framing has not: it is at most a moment away
            self._after = self._finish_once
            self._loop.call_later(1.0, self._finish_late)

    def break_off(self, error_type: str, message: str, request_id: str) -> bool:
        """End a stream of which the client has seen a part; False when nothing has gone out, so that a refusal can."""
        self.hang_up()
        if not self._responder.started:
            return False
        if self.streaming and self.meter:
            self._responder.write(self._format.ending(self.meter.tail(), error_type, message, request_id))
            self._responder.finish()
        else:
            self._responder.abort()
        return True

    def close(self) -> None:
        """The watch is not asked any more; relay and watch in a circle would keep two bodies until a collection."""
        self._timer.cancel()
        del self._watch

    def _finish_once(self) -> None:
        self._after = None
        self._responder.finish()

    def _finish_late(self) -> None:
        if self._after:
            self.hang_up()
            self._finish_once()

    def _keep(self, data: bytes) -> None:
        """Not a stream: see the module's docstring."""
        if self._responder.started:
            self._responder.write(data)
            return
        self._kept += data
        if len(self._kept) > self._times.max_buffered_bytes and self.head_seen:
            head = self.head_seen
            self._responder.start(head.status, self._watch.headers(head), head.length, head.reason)
            self._responder.write(bytes(self._kept))
            self._kept.clear()

    def _finish_plain(self, head: Head) -> None:
        assert self.meter is not None
        body = bytes(self._kept) + self.meter.held()
        if not self._responder.started:
            self._responder.start(head.status, self._watch.headers(head), len(body), head.reason)
        self._responder.write(body)
        self._responder.finish()

    def _see(self, meter: Meter) -> None:
        if meter.input_tokens:  # before that the provider has said nothing that could be told
            self._seen_until = self._heard + PROGRESS_SECONDS
            self._watch.seen(meter)

    def _look_ahead(self, meter: Meter) -> None:
        """For each chunk: as cheap as can be."""
        course = self._course
        if course is not None and course.line < NEVER and meter.output_tokens >= course.line:
            self._watch.reached(meter)

    def _stop(self, why: Stop) -> None:
        if not self.done.done():
            self.done.set_result(why)

    def _tick(self) -> None:
        """Pings, and the two kinds of silence; looked at once per heartbeat rather than timed for each read."""
        now = self._loop.time()
        beat = self._times.heartbeat_seconds
        next_at = now + beat
        if self.done.done():
            return
        if self._slow_since:
            if now - self._slow_since >= self._times.write_idle_timeout_seconds:
                self._responder.abort()
                return
        elif now - self._heard >= self._times.upstream_idle_timeout_seconds:
            self._stop(Stop.BROKEN)
            self.hang_up()
            return
        elif self.streaming and self.meter:
            self._see(self.meter)
            self._look_ahead(self.meter)
            if self.done.done():
                return
            silent_since = max(self._heard, self._written)
            if now - silent_since >= beat * 0.99:
                if self.meter.tail().at_boundary:
                    self._responder.write(self._format.ping())
                    self._written = now
            else:
                next_at = silent_since + beat
        self._timer = self._loop.call_at(next_at, self._tick)
