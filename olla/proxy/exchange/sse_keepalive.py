"""Send SSE comments to a client that waits for the first event of a stream.

Clients, and proxies between them and olla, may time out a connection that is silent for a minute,
for example while a model of 40 GB is loaded. If the operator enables it and the response format
has comments, olla begins the stream itself and reports the expected wait at intervals. Later
failures can only be reported within the stream.
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
    """Sends comments until the response begins. A `Watched`."""

    __slots__ = (
        *("_cors", "_dates", "_deadlines", "_dialect", "_downstream", "_interval", "_loop"),
        *("_operation", "_record", "_started", "_response_headers", "begun", "slot"),
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
        """`interval`: seconds between two comments; `cors`: see `IncomingRequest.cors`."""
        self._cors = cors
        self._dates = services.date_header
        self._deadlines = services.timers
        self._response_headers = services.response_headers
        self._dialect = target.dialect
        self._operation = target.operation
        self._interval = interval
        self._downstream = downstream
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self.begun = False
        """Whether the stream's head has been sent to the client."""
        self.slot = 0.0
        self._deadlines.watch(self, self._started + self._interval)

    def due(self) -> None:
        """Send a comment, preceded by the head if it is the first."""
        downstream = self._downstream
        now = self._loop.time()
        if downstream.closing:
            return
        if downstream.paused:  # the client has not read the previous comments
            self._deadlines.watch(self, now + self._interval)
            return
        text = self._dialect.waiting(self._operation, self._text(now - self._started))
        if text is None:
            return
        if not self.begun:
            self._begin(self._record.started + now - self._started)
        downstream.write(self._frame(text))
        self._deadlines.watch(self, now + self._interval)

    def stop(self) -> bool:
        """Stop the comments. Returns whether the stream has begun."""
        self._deadlines.forget(self)
        return self.begun

    def fail(self, failure: Failure) -> int:
        """Report a failure within the stream. Returns the bytes written.

        The connection is closed afterwards.
        """
        data = self._frame(self._dialect.in_band_error(failure, mid_record=False))
        self._downstream.persistent = False
        self._downstream.write(data)
        return len(data)

    def _begin(self, now: float) -> None:
        downstream = self._downstream
        self.begun = True
        record = self._record
        if not record.decision:  # still queued, with no endpoint chosen
            record.decision, record.reason = "routed", "queued"
        framing = b"Transfer-Encoding: chunked\r\n"
        if downstream.minor == 0:
            downstream.persistent = False
            downstream.close_delimited()
            framing = b""
        if not downstream.persistent:
            framing += b"Connection: close\r\n"
        fields = self._dates.field(now) + self._response_headers.fields(self._record, now, None)
        downstream.write(_HEAD + framing + fields + self._cors + b"\r\n")

    def _frame(self, data: bytes) -> bytes:
        return chunk(data) if self._downstream.minor == 1 else data

    def _text(self, waited: float) -> str:
        predicted = self._record.predicted
        text = f"waiting for {self._record.model or 'a response'} ({waited:.0f} s so far)"
        if predicted is None:
            return text
        if waited > predicted + 1:
            return f"{text}, longer than the expected {predicted:.0f} s"
        return f"{text}, expected in about {max(predicted - waited, 1.0):.0f} s"


def keepalive_for(
    services: Services,
    interval: float,
    target: Target,
    downstream: Downstream,
    record: RequestRecord,
    cors: bytes,
) -> SseKeepalive | None:
    """Return a keepalive for a streamed response; None if its format has no comments."""
    if not target.inference or target.dialect.waiting(target.operation, "") is None:
        return None
    return SseKeepalive(services, interval, target, downstream, record, cors)
