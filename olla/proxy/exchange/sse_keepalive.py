"""An answer that is being waited for, made visible: comments before a stream's first event.

Proxies between olla and its client, and the client itself, may give up on a connection on which
nothing moves for a minute, while a model of forty gigabytes is loaded. Where the format of the
answer has comments and the operator wants it, olla begins the stream itself and says from time to
time how long it will take. What fails after that can only be told within the stream.
"""

import asyncio

from olla.dialects.paths import Target
from olla.failures import Failure
from olla.proxy.exchange.context import Services
from olla.proxy.http.framing import chunk
from olla.proxy.upstream.relay import Downstream
from olla.record import RequestRecord

__all__ = ["SseKeepalive", "keepalive_for"]

_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: olla\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
)


class SseKeepalive:
    """Speaks for an answer until it comes. See `Watched`."""

    __slots__ = (
        *("_cors", "_dates", "_deadlines", "_dialect", "_downstream", "_interval", "_loop"),
        *("_operation", "_record", "_started", "_telling", "begun", "slot"),
    )

    def __init__(
        self,
        services: Services,
        interval: float,
        target: Target,
        downstream: Downstream,
        record: RequestRecord,
        cors: bytes,
    ) -> None:
        """`interval`: seconds between two signs of life; `cors`: see `IncomingRequest.cors`."""
        self._cors = cors
        self._dates = services.date_header
        self._deadlines = services.timers
        self._telling = services.response_headers
        self._dialect = target.dialect
        self._operation = target.operation
        self._interval = interval
        self._downstream = downstream
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self.begun = False
        """The stream's head has gone to the client."""
        self.slot = 0.0
        self._deadlines.watch(self, self._started + self._interval)

    def due(self) -> None:
        """Say something."""
        downstream = self._downstream
        now = self._loop.time()
        if downstream.closing:
            return
        if downstream.paused:  # nobody reads what was said before
            self._deadlines.watch(self, now + self._interval)
            return
        text = self._dialect.waiting(self._operation, self._text(now - self._started))
        if text is None:
            return
        if not self.begun:
            self._begin(self._record.started + now - self._started)
        downstream.write(self._framed(text))
        self._deadlines.watch(self, now + self._interval)

    def stop(self) -> bool:
        """The answer is there, or will not come. Returns whether the stream has begun."""
        self._deadlines.forget(self)
        return self.begun

    def fail(self, failure: Failure) -> int:
        """Say within the stream that it will not come; returns the bytes that took. The
        connection is to be closed after it."""
        data = self._framed(self._dialect.in_band_error(failure, mid_record=False))
        self._downstream.persistent = False
        self._downstream.write(data)
        return len(data)

    def _begin(self, now: float) -> None:
        downstream = self._downstream
        self.begun = True
        record = self._record
        if not record.decision:  # it waits for its turn, and no endpoint has been chosen
            record.decision, record.reason = "routed", "queued"
        framing = b"Transfer-Encoding: chunked\r\n"
        if downstream.minor == 0:
            downstream.persistent = False
            downstream.close_delimited()
            framing = b""
        if not downstream.persistent:
            framing += b"Connection: close\r\n"
        fields = self._dates.field(now) + self._telling.fields(self._record, now, None)
        downstream.write(_HEAD + framing + fields + self._cors + b"\r\n")

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if self._downstream.minor == 1 else data

    def _text(self, waited: float) -> str:
        predicted = self._record.predicted
        text = f"waiting for {self._record.model or 'an answer'} since {waited:.0f} s"
        if predicted is None:
            return text
        if waited > predicted + 1:
            return f"{text}, longer than the {predicted:.0f} s that were expected"
        return f"{text}, expected in about {max(predicted - waited, 1.0):.0f} s"


def keepalive_for(
    services: Services,
    interval: float,
    target: Target,
    downstream: Downstream,
    record: RequestRecord,
    cors: bytes,
) -> SseKeepalive | None:
    """Whoever speaks for a stream while it is waited for; None where its format has no words for
    that."""
    if not target.inference or target.dialect.waiting(target.operation, "") is None:
        return None
    return SseKeepalive(services, interval, target, downstream, record, cors)
