"""Use aiohttp's private hooks, which no other module does.

The hooks and their purposes:

* `RequestHandler` may be subclassed, and `AiohttpServer.__call__` makes it. (Documented only for
  `AiohttpServer`.)
* `RequestHandler.handle_error` answers requests that the parser rejected: olla answers them in the
  path's dialect.
* `_messages` holds the (message, payload) pairs that wait for the handler, with an `_ErrInfo` for
  an unparsable message, and `_request_count` counts them. They show whether a head is incomplete,
  so that its total size can be limited.
* `request_factory` makes the request object from the parsed message, a `RawRequestMessage` that can
  be replaced: olla turns a target in absolute form into one in origin form.
* `BaseRequest._prepare_hook` is awaited when a response's fields are complete and not yet written:
  olla sets `Server` there.
* `AiohttpServer._kwargs` are the options of future connections: a reload changes them.
* A handler may return any object with `prepare`, `write_eof` and `keep_alive`: olla returns one to
  tell that the response was already written to the transport (see `written`).
* `pause_writing` and `resume_writing` are asyncio's callbacks. So is `eof_received`, in which
  aiohttp closes the connection at once.
* The fast path only takes bytes while `start()` waits for a request: `_waiter` is pending,
  `_messages` is empty, nothing is closing (`_close`, `_force_close`) or upgraded (`_upgraded`).
  During its response, `_next_keepalive_close_time` postpones the idle timer
  (`_process_keepalive`).

`aiohttp_check` verifies this at start for the fast path, and
`tests/proxy/server/test_aiohttp_internals.py` fails when an aiohttp release changes it.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from olla.clock import Clock
from olla.failures import Failure, Kind
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.send_timeout import SendTimeout
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.exchange import ClientListener
from olla.proxy.http.authority import is_authority, is_own, split_absolute
from olla.proxy.http.raw_response import WRITTEN_CLOSE
from olla.proxy.http.request import body_too_slow
from olla.proxy.server.fast_path import FastPath, HotRequest

__all__ = ["AiohttpServer", "Connection"]

_ITERATIONS_MAX = 8
"""Iterations of the event loop that aiohttp may need between two requests; it needs three."""
_SURPLUS_MAX = 16
"""Connections beyond the limit that get an error response; further ones are reset."""
_RESET_WAIT_MAX = 5.0
_RESET_CHECK_INTERVAL = 0.05
_RESET_PAUSE = 0.1
"""Seconds before the reset that ends a truncated response: the maximum, the interval at which the
unsent bytes are checked, and the pause once all are acknowledged. A reset overtakes bytes that wait
in the kernel, and some systems drop bytes that the client has not read yet."""
_LINGER_RESET = struct.pack("ii", 1, 0)
_LINGER_CLOSE = struct.pack("ii", 0, 0)
"""Values of `SO_LINGER`: closing resets the connection, or ends it regularly."""
_STREAMS = ("application/x-ndjson", "text/event-stream")
_DUE_WITHIN = 0.001
"""Seconds. A deadline that is nearer counts as reached."""
_PIPELINED_MAX = 65536
"""Bytes of pipelined requests that are buffered during a response; then reading pauses."""


class Request(web.BaseRequest):
    """A request parsed by aiohttp. Completes the head of each response that aiohttp writes."""

    begun = False
    """Whether aiohttp has written the head of the response."""
    fault = ""
    """Why its Host or target is invalid, "" if it is valid. Such a request must be rejected."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """Set fields of a response before aiohttp writes its head."""
        self.begun = True
        headers = response.headers
        if self.version < HttpVersion11 and not isinstance(response, web.Response):
            cast(Connection, self.protocol).close_delimited()
        headers["Server"] = "olla"
        if headers.get("Content-Type", "").startswith(_STREAMS):
            headers.setdefault("X-Accel-Buffering", "no")


class Connection(RequestHandler):
    """A client's connection: aiohttp's, with a limit on the head's size and the fast path.

    Exchanges write their responses to it, see `relay.Downstream`.
    """

    __slots__ = (
        *("_answered", "_body_deadline", "_drained", "_exchange", "_half_closed", "_head_size"),
        *("_head_start", "_last_read", "_hot", "_incoming", "_last_payload", "_pipelined"),
        *(
            "_pipelined_size",
            "_reset_done",
            "_reset_timer",
            "_refused",
            "_requests_seen",
            "_sending",
            "_server",
        ),
        *(
            "_stalled",
            "_iterations",
            "_incomplete",
            "_unused_by_aiohttp",
            "minor",
            "peer",
            "persistent",
        ),
        *("slot", "surplus", "wants_trailers"),
    )

    def __init__(self, server: "AiohttpServer", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._drained: Callable[[], None] | None = None
        self._sending: SendTimeout | None = None
        self._stalled = False
        self._head_start = b""
        self._head_size = 0
        self._requests_seen = 0
        self._last_payload: Any = None
        self._refused = False
        self._hot = False
        """Whether the fast path handles the connection."""
        self._incoming: HotRequest | None = None  # the hot request whose body is incomplete
        self._pipelined: list[bytes] = []
        self._pipelined_size = 0
        self._iterations = 0
        self._last_read = 0.0
        """When the last bytes of an incomplete body arrived, in the loop's time."""
        self._body_deadline = 0.0
        """When that body times out if no more bytes arrive."""
        self.slot = 0.0
        self.surplus = False
        """Whether the connection exceeds the limit, so that its requests are rejected."""
        self._unused_by_aiohttp = True
        """Whether aiohttp has not received any bytes, and so waits for the first request."""
        self._exchange: ClientListener | None = None
        self._answered: asyncio.Future[None] | None = None
        self._half_closed = False
        """Whether the client has closed its side and still waits for a response."""
        self._incomplete = False
        """Whether a response that ends with the connection is incomplete."""
        self._reset_timer: asyncio.TimerHandle | None = None
        self._reset_done: asyncio.Future[None] | None = None
        self.persistent = True
        self.minor = 1
        self.wants_trailers = False
        self.peer = ""  # the client's IP address

    # --- Downstream: written to by exchanges ------------------------------------------------

    @property
    def closing(self) -> bool:
        """Tell whether the connection is closed or closing."""
        return self.transport is None or self.transport.is_closing()

    @property
    def paused(self) -> bool:
        """Tell whether written bytes still wait for a slow client."""
        return self._paused

    def write(self, data: bytes) -> None:
        """Send bytes."""
        # uvloop raises on a transport that is closed before connection_lost is called.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once the written bytes have been sent."""
        self._drained = callback

    def carries(self, exchange: ClientListener) -> None:
        """Set the exchange that is abandoned when the connection is lost."""
        self._exchange = exchange
        if self._half_closed:
            exchange.half_closed()

    def close_delimited(self) -> None:
        """See `relay.Downstream`. Until the response is complete, closing the socket resets it,
        also when the router stops or crashes."""
        self._incomplete = True
        self._linger(_LINGER_RESET)

    def complete(self) -> None:
        """See `relay.Downstream`."""
        if self._incomplete:
            self._incomplete = False
            self._linger(_LINGER_CLOSE)

    def _linger(self, option: bytes) -> None:
        if not self.closing and self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)

    def answered(self) -> None:
        """End the exchange. The next request waits until the client has taken the response:
        otherwise a client that sends requests and does not read would fill the memory."""
        self._exchange = None
        if self._incomplete and self.transport is not None:
            self._drained = None
            self._reset_when_sent(self._loop.time() + _RESET_WAIT_MAX)
        elif self._paused and self.persistent:
            self._drained = self._resume
        else:
            self._drained = None
            self._resume()

    def _resume(self) -> None:
        waiter, self._answered = self._answered, None
        if self._hot:
            if self._pipelined:
                # In a new loop iteration: a chain of requests answered at once would recurse.
                self._loop.call_soon(self._next)
            else:
                self._next()
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _reset_when_sent(self, until: float) -> None:
        """Reset the connection once the client has acknowledged all bytes, or at `until`."""
        transport = self.transport
        if transport is None:
            return
        if self._reset_done is None:
            self._reset_done = self._loop.create_future()
        if self._loop.time() < until and _unsent(transport):
            self._reset_timer = self._loop.call_later(
                _RESET_CHECK_INTERVAL, self._reset_when_sent, until
            )
        else:
            self._reset_timer = self._loop.call_later(_RESET_PAUSE, transport.abort)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """aiohttp: stop the connection, after a pending reset has been sent."""
        if self._reset_done is not None:
            await asyncio.wait([self._reset_done], timeout=timeout)
        await super().shutdown(timeout)

    def until_answered(self) -> "asyncio.Future[None]":
        """Return a future that is done when the next exchange has ended."""
        self._answered = self._loop.create_future()
        return self._answered

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is established."""
        super().connection_made(transport)
        # With high=0 a client counts as slow from the first unsent byte. One read from an endpoint
        # is 256 KB, which so is the most that a slow reader holds.
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=0)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) and address else ""
        count, limit = len(self._server.connections), self._server.connections_max
        self.surplus = count > limit
        if count > limit + _SURPLUS_MAX:
            cast(asyncio.WriteTransport, transport).abort()

    def pause_writing(self) -> None:
        """asyncio: the kernel's send buffer is full."""
        super().pause_writing()
        if self._sending is None and self.transport is not None:
            server = self._server
            transport = cast(asyncio.WriteTransport, self.transport)
            self._sending = SendTimeout(
                transport, server.timeouts, server.deadlines, self._loop, self._stall
            )

    def resume_writing(self) -> None:
        """asyncio: all written bytes were sent."""
        super().resume_writing()
        self._stop_sending()
        callback, self._drained = self._drained, None
        if callback is not None:
            callback()

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.stop()

    def _stall(self, transport: asyncio.WriteTransport) -> None:
        """Abort the connection of a client that does not read, to release its resources."""
        self._stalled = True
        transport.abort()

    def gone(self) -> Failure:
        """Return the failure that describes why the client's connection ended."""
        if not self._stalled:
            return Failure(Kind.CLIENT_GONE, "the client went away")
        seconds = self._server.timeouts.send
        message = f"the client did not read its answer for {seconds:g} s (server.send_timeout)"
        return Failure(Kind.CLIENT_STALLED, message)

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the connection is closed."""
        self._drained = None
        self._stop_sending()
        if self._reset_timer is not None:
            self._reset_timer.cancel()
        if self._reset_done is not None and not self._reset_done.done():
            self._reset_done.set_result(None)
        if self._incoming is not None:
            self._incoming = None
        self._server.deadlines.forget(self)
        self._pipelined.clear()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.abandon(self.gone())

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's always closes
        """asyncio: the client has closed its side. Return whether the connection stays open.

        Health checks with `nc` close their side after the request, so complete requests are still
        answered. A client that has disconnected looks the same until something is written to it.
        """
        if self._half_closed:
            return True  # called again after reading was resumed
        self._drop_half_read()
        if self._reset_done is not None or not self._has_unanswered():
            return False
        self._half_closed = True
        self._close_after_last()
        if self._exchange is not None:
            self._exchange.half_closed()
        return True

    def _drop_half_read(self) -> None:
        """Drop a pipelined request whose body will not arrive; those before it are complete.

        The request for which aiohttp has just been woken is kept.
        """
        payload, waiting = self._last_payload, len(self._messages)
        if payload is None or payload.is_eof() or not waiting:
            return
        if waiting > 1 or (self._waiter is None and self._request_count > 1):
            self._messages.pop()
            self._last_payload = None

    def _has_unanswered(self) -> bool:
        """Tell whether a complete request has not been answered yet."""
        if self._hot:
            return self._incoming is None
        whole = self._last_payload is None or self._last_payload.is_eof()
        return whole and self._request_count > 0 and not self.waits()

    def _close_after_last(self) -> None:
        """The client asks nothing more: after what it is owed the connection ends."""
        self._drop_half_read()
        transport = self.transport
        if not self._has_unanswered():
            self.close()
            if transport is not None:
                transport.close()
        elif not self._hot and not self._messages:
            self.close()  # after what is being answered

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        fast_path = self._server.fast_path
        if self._hot:
            self._add_body(data)
        elif fast_path is None or self.surplus or not data.startswith(b"POST "):
            self.hand_to_aiohttp(data)
        elif self._unused_by_aiohttp and not self._close and not self._force_close:
            if not self._take(fast_path, data):
                self.hand_to_aiohttp(data)
        elif self.half_read():
            self.hand_to_aiohttp(data)
        elif self._between_requests():
            # aiohttp has answered, and waits for the next request in a few loop iterations.
            self._hot = True
            self._iterations += 1
            self._buffer(data)
            self._loop.call_soon(self._next)
        elif not self.waits() or not self._take(fast_path, data):
            self.hand_to_aiohttp(data)

    # --- the fast path ----------------------------------------------------------------------

    def half_read(self) -> bool:
        """Tell whether aiohttp holds a partial request or one that it has not begun to answer."""
        return bool(
            self._messages
            or self._head_size
            or self._refused
            or self._close
            or self._force_close
            or self._upgraded
            or (self._last_payload is not None and not self._last_payload.is_eof())
        )

    def waits(self) -> bool:
        """Tell whether aiohttp waits for a request."""
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def _between_requests(self) -> bool:
        """Tell whether aiohttp has answered its last request and does not await the next yet."""
        return (
            self._waiter is None
            and not self._request_in_progress
            and self._iterations < _ITERATIONS_MAX
        )

    def _take(self, fast_path: FastPath, data: bytes) -> bool:
        taken = fast_path.take(data, self._server.clock.now(), self.peer)
        if taken is None:
            return False
        request, rest = taken
        if rest and request.head.closes:
            return False  # bytes after the last request are an error, which aiohttp reports
        self._hot = True
        self._iterations = 0
        if self.slot:
            self._server.deadlines.forget(self)
        self.persistent = not request.head.closes
        self.minor = 1
        self.wants_trailers = False
        if rest:
            self._buffer(rest)
        if request.missing:
            self._incoming = request
            timeouts = self._server.timeouts
            self._last_read = self._loop.time()
            self._body_deadline = self._last_read + timeouts.body
            self._watch(min(timeouts.silence, timeouts.body))
        self._server.begin(self, request)
        return True

    def _add_body(self, data: bytes) -> None:
        request = self._incoming
        if request is None:
            if self.persistent:  # bytes after the last request are ignored
                self._buffer(data)
            return
        if self._exchange is None:
            request.skip(data)
            if not request.missing:
                self._finish_rejected()
            return
        rest = request.add(data)
        if rest:
            self._buffer(rest)
        now, timeouts = self._loop.time(), self._server.timeouts
        self._last_read = now
        self._body_deadline = now + timeouts.body_left(self._body_deadline - now, len(data))
        if not request.missing:
            self._incoming = None
            self._server.deadlines.forget(self)
        self._server.more(request)

    def _finish_rejected(self) -> None:
        """Finish a rejected request whose body has been skipped or has timed out."""
        self._incoming = None
        self._server.deadlines.forget(self)
        self._next()

    def _buffer(self, data: bytes) -> None:
        self._pipelined.append(data)
        self._pipelined_size += len(data)
        if self._pipelined_size > _PIPELINED_MAX and self.transport is not None:
            self.transport.pause_reading()

    def _next(self) -> None:
        """Continue after the response to a hot request."""
        if self._incoming is not None:
            # The request was rejected before its body had arrived. Closing now would reset the
            # connection, and the client might never read the response.
            self._incoming.pieces.clear()
            self._watch(self._server.lingering)
            return
        self._hot = False
        transport = self.transport
        if transport is None:
            return
        if not self.persistent or self._close:
            self.close()
            transport.close()
            return
        self._postpone_idle_timeout()
        if self._pipelined:
            data = b"".join(self._pipelined)
            self._pipelined.clear()
            if self._pipelined_size > _PIPELINED_MAX:
                transport.resume_reading()
            self._pipelined_size = 0
            self.data_received(data)
        if self._half_closed:
            self._close_after_last()

    def close(self) -> None:
        """aiohttp: accept no further request; a request on the fast path is still completed."""
        if self._hot:
            self._close = True
        else:
            super().close()

    def _process_keepalive(self) -> None:
        """aiohttp: close the connection if it has been idle for too long."""
        if self._hot:
            self._postpone_idle_timeout()
        super()._process_keepalive()

    def _postpone_idle_timeout(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    # --- timeouts of heads and bodies ---------------------------------------------------------

    def _watch(self, seconds: float) -> None:
        self._server.deadlines.watch(self, self._loop.time() + seconds)

    def due(self) -> None:
        """Handle a client that did not finish its head or body in time. See `Watched`."""
        request, server = self._incoming, self._server
        if request is not None:
            if self._exchange is None:
                self._finish_rejected()
                return
            timeouts, now = server.timeouts, self._loop.time()
            silent_at = self._last_read + timeouts.silence
            left = min(silent_at, self._body_deadline) - now
            if left > _DUE_WITHIN:
                self._watch(left)
            elif request.exchange is not None:
                request.exchange.stop(
                    body_too_slow(timeouts, silent=silent_at <= self._body_deadline)
                )
        elif self._head_size and not (self._request_in_progress or self._messages):
            seconds = server.timeouts.head
            self._refused = True
            message = f"the request's head was not complete within {seconds:g} s"
            self.write(self._server.refusal(self._head_start, self.peer, 408, message, None))
            self._close_transport()

    def _close_transport(self) -> None:
        transport = self.transport
        self.close()
        if transport is not None:
            transport.close()

    # --- requests that aiohttp parses -------------------------------------------------------

    def before_request(self) -> None:
        """Close the connection after this request if it is the last of a half-closed client."""
        if self._half_closed and not self._messages:
            self.close()

    def hand_to_aiohttp(self, data: bytes) -> None:
        """Pass bytes to aiohttp's parser, and count those of an incomplete head."""
        self._unused_by_aiohttp = False
        if self._refused:
            return  # the rest of a rejected request
        between = self._last_payload is None or self._last_payload.is_eof()
        if between and not self._head_size:
            self._head_start = data
        super().data_received(data)
        if self._request_count != self._requests_seen:
            self._requests_seen = self._request_count
            self._head_size = 0
            if self.slot:
                self._server.deadlines.forget(self)
            if self._messages:
                message, self._last_payload = self._messages[-1]
                self._refused = isinstance(message, _ErrInfo)
            if not self._refused:
                self._head_start = b""  # free it: it is a whole read, perhaps with a large body
        elif between and data:  # aiohttp calls this with no bytes when it resumes reading
            if not self._head_size:
                self._watch(self._server.timeouts.head)
            self._head_size += len(data)
            if self._head_size > self._server.head_max:
                self._refuse_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that aiohttp's parser rejected, or whose handler raised."""
        too_long = isinstance(exc, LineTooLong) or "Too many" in (message or "")
        text = str(message or exc or "").splitlines()
        reason = text[0].rstrip(":") if text else ""
        begun = isinstance(request, Request) and request.begun
        self._write_refusal(431 if too_long else status, reason, exc, mid_answer=begun)
        return WRITTEN_CLOSE

    def _refuse_head(self) -> None:
        if self._request_in_progress or self._messages:
            self.force_close()  # a response here would mix with the one in progress
            return
        self._write_refusal(431, "", None)
        self._close_transport()

    def _write_refusal(
        self, status: int, message: str, exc: BaseException | None, *, mid_answer: bool = False
    ) -> None:
        answer = self._server.refusal(self._head_start, self.peer, status, message, exc)
        if not mid_answer:
            self.write(answer)


def _unsent(transport: asyncio.WriteTransport) -> bool:
    """Tell whether the client's system has not acknowledged all written bytes."""
    if transport.get_write_buffer_size():
        return True
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    try:
        waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # no support on this system, or a closed socket
        return False
    return int.from_bytes(waiting, sys.byteorder) > 0


class AiohttpServer(web.Server):
    """aiohttp's low-level server, which makes olla's connections.

    `head_max` limits a request's head, in bytes. `refusal` makes the response to an invalid
    request from the first bytes received, the client's address, the status, the parser's message
    and the exception of a handler, if any. `begin` starts a hot request, whose body may be
    incomplete; `more` is then called for each further piece. The rest of a rejected body is read
    and discarded for `lingering` seconds.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Any],
        *,
        head_max: int,
        refusal: Callable[[bytes, str, int, str, BaseException | None], bytes],
        begin: Callable[[Connection, HotRequest], None],
        more: Callable[[HotRequest], None],
        clock: Clock,
        deadlines: TimerWheel,
        timeouts: ClientTimeouts,
        connections_max: int,
        lingering: float,
        **options: Any,
    ) -> None:
        super().__init__(
            handler,
            request_factory=self._new_request,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=head_max,
            max_field_size=head_max,
            max_headers=1024,
            keepalive_timeout=timeouts.idle,
            lingering_time=lingering,
            **options,
        )
        self.head_max = head_max
        self.refusal = refusal
        self.begin = begin
        self.more = more
        self.lingering = lingering
        self.clock = clock
        self.deadlines = deadlines
        self.timeouts = timeouts
        self.connections_max = connections_max
        self._hostname = socket.gethostname()
        self.fast_path: FastPath | None = None
        """Parses hot requests; None if aiohttp handles all requests."""

    def limit(self, *, head_max: int, timeouts: ClientTimeouts, connections_max: int) -> None:
        """Change the limits of future connections."""
        self.head_max = head_max
        self.timeouts = timeouts
        self.connections_max = connections_max
        self._kwargs.update(
            max_line_size=head_max, max_field_size=head_max, keepalive_timeout=timeouts.idle
        )

    def _new_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> Request:
        fault = ""
        for name, value in message.raw_headers:
            if name.lower() == b"host" and not is_authority(value.strip(b" \t")):
                fault = "its Host header is not a host with an optional port"
        if not message.path.startswith("/") and message.path != "*" and not fault:
            message, fault = self._in_origin_form(message, protocol)
        cast(Connection, protocol).before_request()
        request = Request(message, payload, protocol, writer, task, self._loop)
        request.fault = fault
        return request

    def _in_origin_form(
        self, message: RawRequestMessage, protocol: RequestHandler
    ) -> tuple[RawRequestMessage, str]:
        """Return a message with its absolute target in origin form, and why it is invalid or "".

        The target's host replaces the Host field (RFC 9112, section 3.2.2).
        """
        absolute = split_absolute(message.path)
        if absolute is None:
            return message, "its target is neither a path nor an http:// URL"
        authority, target = absolute
        sockname = protocol.sockname
        address, port = (str(sockname[0]), sockname[1]) if isinstance(sockname, tuple) else ("", 0)
        if not is_own(authority, address, port, self._hostname):
            return message, "its target names another server, and olla is not a forward proxy"
        if target == "/" and message.method == "OPTIONS" and not message.path.endswith("/"):
            target = "*"  # RFC 9112, section 3.2.4
        path, _, query = target.partition("?")
        fields = [field for field in message.raw_headers if field[0].lower() != b"host"]
        headers = CIMultiDict(message.headers)
        headers["Host"] = authority
        return message._replace(
            path=target,
            url=URL.build(path=path, query_string=query, encoded=True) if path != "*" else URL("*"),
            headers=CIMultiDictProxy(headers),
            raw_headers=((b"Host", authority.encode()), *fields),
        ), ""

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)
