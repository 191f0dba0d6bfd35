"""The only door to aiohttp's private hooks: what we lean on, and nothing else.

What is relied on, and why:

* `RequestHandler` may be subclassed, and `AiohttpServer.__call__` makes it. (Documented only for
  `AiohttpServer`.)
* `RequestHandler.handle_error` answers what the parser refused: we answer in the path's dialect.
* `_messages` holds (message, payload) pairs that were parsed and wait for the handler, with an
  `_ErrInfo` for what could not be, and `_request_count` counts them: with these we know whether
  a head is still incomplete, which bounds a head's total size.
* `request_factory` makes the request object of the parsed message, a `RawRequestMessage` that can
  be replaced: there a target in absolute form becomes one in origin form. And
 `BaseRequest._prepare_hook` is awaited once an
  answer's fields are complete and before they are written: there they get `AiohttpServer`.
* `AiohttpServer._kwargs` are the options of connections to come: a reload changes them.
* A handler may return any object with `prepare`, `write_eof` and `keep_alive`: that is how we say
  that the answer was already written to the transport (see `written`).
* `pause_writing` and `resume_writing` are asyncio's own, and so is `eof_received`, which aiohttp
  lets close the connection at once.
* The fast path only takes bytes while `start()` waits for a request: `_waiter` is pending,
  `_messages` empty, nothing is closing (`_close`, `_force_close`) or upgraded (`_upgraded`). While
  it answers, the idle timer (`_process_keepalive`) is put off by `_next_keepalive_close_time`.

`aiohttp_check` looks at start whether the fast path can rely on this, and
`tests/proxy/server/test_aiohttp_internals.py` fails loudly when something is no longer so.
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

_TURNS_MAX = 8
"""Turns of the loop that aiohttp may take from one request to the next; it takes three."""
_SURPLUS_MAX = 16
"""Connections beyond the limit that are told so; more are closed without a word."""
_PARTING_SECONDS_MAX = 5.0
_PARTING_STEP = 0.05
_PARTING_MOMENT = 0.1
"""Seconds before the reset that ends a broken answer: at most, between two looks whether the client
has got what was written, and after it has. A reset overtakes what waits in the kernel, and some
systems drop what their program has not read yet."""
_RESETS = struct.pack("ii", 1, 0)
_ENDS = struct.pack("ii", 0, 0)
"""`SO_LINGER`: a closed connection is reset, or ends."""
_STREAMS = ("application/x-ndjson", "text/event-stream")
_SOON = 0.001
"""Seconds. A deadline that is nearer has come."""
_LATER_MAX = 65536
"""Bytes of further requests taken in while one is answered; then the client has to wait."""


class Request(web.BaseRequest):
    """A request as aiohttp has parsed it. Completes the head of each answer that aiohttp writes."""

    begun = False
    """The head of its answer has been written, by aiohttp."""
    fault = ""
    """What is wrong with whom it is for; it must be refused then."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        """aiohttp: the answer's head is about to be written."""
        self.begun = True
        headers = response.headers
        if self.version < HttpVersion11 and not isinstance(response, web.Response):
            cast(Connection, self.protocol).close_delimited()
        headers["Server"] = "olla"
        if headers.get("Content-Type", "").startswith(_STREAMS):
            headers.setdefault("X-Accel-Buffering", "no")


class Connection(RequestHandler):
    """A client's connection: aiohttp's, with a bound on a head's size, and the fast path.

    It is also what an exchange writes its answer to, see `relay.ProxyServer`.
    """

    __slots__ = (
        *("_answered", "_body_by", "_drained", "_exchange", "_half_closed", "_head_size"),
        *("_head_start", "_heard", "_hot", "_incoming", "_last_payload", "_later"),
        *("_later_size", "_parted", "_parting", "_refused", "_seen", "_sending", "_server"),
        *("_stalled", "_turns", "_unfinished", "_untouched", "minor", "peer", "persistent"),
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
        self._seen = 0
        self._last_payload: Any = None
        self._refused = False
        self._hot = False
        """Whether the fast path has the connection."""
        self._incoming: HotRequest | None = None  # the hot request that is coming in
        self._later: list[bytes] = []
        self._later_size = 0
        self._turns = 0
        self._heard = 0.0
        """When the client was last heard of in the middle of a body, in the loop's time."""
        self._body_by = 0.0
        """When that body has come too slowly, if nothing more comes of it."""
        self.slot = 0.0
        self.surplus = False
        """One too many: its requests are refused."""
        self._untouched = True
        """Whether aiohttp has had no byte of this connection: then it waits for the first."""
        self._exchange: ClientListener | None = None
        self._answered: asyncio.Future[None] | None = None
        self._half_closed = False
        """The client has closed its side, and is owed something."""
        self._unfinished = False
        """An answer that ends with the connection has begun, and is not whole."""
        self._parting: asyncio.TimerHandle | None = None
        self._parted: asyncio.Future[None] | None = None
        self.persistent = True
        self.minor = 1
        self.wants_trailers = False
        self.peer = ""  # the client's IP address

    # --- what an exchange writes to ---------------------------------------------------------

    @property
    def closing(self) -> bool:
        """The connection is closed or closing."""
        return self.transport is None or self.transport.is_closing()

    @property
    def paused(self) -> bool:
        """The client is slow: of what was written, something has not gone out yet."""
        return self._paused

    def write(self, data: bytes) -> None:
        """Send bytes."""
        # uvloop raises on a transport that has closed but not yet said so.
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once what was written has gone out far enough."""
        self._drained = callback

    def carries(self, exchange: ClientListener) -> None:
        """An exchange begins: it is abandoned when the connection is lost."""
        self._exchange = exchange
        if self._half_closed:
            exchange.half_closed()

    def close_delimited(self) -> None:
        """See `relay.ProxyServer`. Whoever closes the socket resets it then: the router's end, be
        it regular or not, too."""
        self._unfinished = True
        self._linger(_RESETS)

    def complete(self) -> None:
        """See `relay.ProxyServer`."""
        if self._unfinished:
            self._unfinished = False
            self._linger(_ENDS)

    def _linger(self, option: bytes) -> None:
        if not self.closing and self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)

    def answered(self) -> None:
        """The exchange is over. The next begins once the client has taken the answer: one that
        asks on and does not read would fill the memory."""
        self._exchange = None
        if self._unfinished and self.transport is not None:
            self._drained = None
            self._part(self._loop.time() + _PARTING_SECONDS_MAX)
        elif self._paused and self.persistent:
            self._drained = self._go_on
        else:
            self._drained = None
            self._go_on()

    def _go_on(self) -> None:
        waiter, self._answered = self._answered, None
        if self._hot:
            if self._later:
                # In a turn of its own: it may be over at once, and the one after it.
                self._loop.call_soon(self._next)
            else:
                self._next()
        elif waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _part(self, until: float) -> None:
        """Reset the connection once the client has what was written, or at `until`."""
        transport = self.transport
        if transport is None:
            return
        if self._parted is None:
            self._parted = self._loop.create_future()
        if self._loop.time() < until and _unsent(transport):
            self._parting = self._loop.call_later(_PARTING_STEP, self._part, until)
        else:
            self._parting = self._loop.call_later(_PARTING_MOMENT, transport.abort)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """aiohttp: the server ends. What is about to be reset has its moment first."""
        if self._parted is not None:
            await asyncio.wait([self._parted], timeout=timeout)
        await super().shutdown(timeout)

    def until_answered(self) -> "asyncio.Future[None]":
        """Done when the exchange that is about to begin is over."""
        self._answered = self._loop.create_future()
        return self._answered

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection stands."""
        super().connection_made(transport)
        # Whatever waits in memory waits for the client: it is slow from the first byte on. With
        # what is read from an endpoint at once, a slow reader holds 256 KB at most.
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=0)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) and address else ""
        count, most = len(self._server.connections), self._server.connections_max
        self.surplus = count > most
        if count > most + _SURPLUS_MAX:
            cast(asyncio.WriteTransport, transport).abort()

    def pause_writing(self) -> None:
        """asyncio: the kernel takes no more of what is written."""
        super().pause_writing()
        if self._sending is None and self.transport is not None:
            server = self._server
            transport = cast(asyncio.WriteTransport, self.transport)
            self._sending = SendTimeout(
                transport, server.timeouts, server.deadlines, self._loop, self._stall
            )

    def resume_writing(self) -> None:
        """asyncio: the client has taken all that was written."""
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
        """The client does not read: hang up, so that all it holds is given back."""
        self._stalled = True
        transport.abort()

    def gone(self) -> Failure:
        """Why the client is not there any more."""
        if not self._stalled:
            return Failure(Kind.CLIENT_GONE, "the client went away")
        seconds = self._server.timeouts.send
        message = f"the client did not read its answer for {seconds:g} s (server.send_timeout)"
        return Failure(Kind.CLIENT_STALLED, message)

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the connection is gone."""
        self._drained = None
        self._stop_sending()
        if self._parting is not None:
            self._parting.cancel()
        if self._parted is not None and not self._parted.done():
            self._parted.set_result(None)
        if self._incoming is not None:
            self._incoming = None
        self._server.deadlines.forget(self)
        self._later.clear()
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.abandon(self.gone())

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's always closes
        """asyncio: the client has closed its side. Whether the connection stays open.

        Health checks that are written with `nc` do that after their request, and what is asked in
        full is answered; a client that is gone looks the same until something is written to it.
        """
        if self._half_closed:
            return True  # told again, after reading was resumed
        self._drop_half_read()
        if self._parted is not None or not self._owes():
            return False
        self._half_closed = True
        self._close_after_last()
        if self._exchange is not None:
            self._exchange.half_closed()
        return True

    def _drop_half_read(self) -> None:
        """Forget a request whose body will not come, where it waits behind others: they are whole.

        Not the one that aiohttp has just been woken for.
        """
        payload, waiting = self._last_payload, len(self._messages)
        if payload is None or payload.is_eof() or not waiting:
            return
        if waiting > 1 or (self._waiter is None and self._request_count > 1):
            self._messages.pop()
            self._last_payload = None

    def _owes(self) -> bool:
        """Whether a whole request came that is not answered yet."""
        if self._hot:
            return self._incoming is None
        whole = self._last_payload is None or self._last_payload.is_eof()
        return whole and self._request_count > 0 and not self.waits()

    def _close_after_last(self) -> None:
        """The client asks nothing more: after what it is owed the connection ends."""
        self._drop_half_read()
        transport = self.transport
        if not self._owes():
            self.close()
            if transport is not None:
                transport.close()
        elif not self._hot and not self._messages:
            self.close()  # after what is being answered

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        fast_path = self._server.fast_path
        if self._hot:
            self._more(data)
        elif fast_path is None or self.surplus or not data.startswith(b"POST "):
            self.hand_to_aiohttp(data)
        elif self._untouched and not self._close and not self._force_close:
            if not self._take(fast_path, data):
                self.hand_to_aiohttp(data)
        elif self.half_read():
            self.hand_to_aiohttp(data)
        elif self._comes_round():
            # aiohttp has answered, and will wait for the next request some turns from now.
            self._hot = True
            self._turns += 1
            self._keep(data)
            self._loop.call_soon(self._next)
        elif not self.waits() or not self._take(fast_path, data):
            self.hand_to_aiohttp(data)

    # --- the fast path ----------------------------------------------------------------------

    def half_read(self) -> bool:
        """Whether aiohttp holds a part of a request, or one that it has not begun to answer."""
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
        """Whether aiohttp waits for a request."""
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def _comes_round(self) -> bool:
        """Whether aiohttp has answered its last request, but does not wait for the next yet."""
        return self._waiter is None and not self._request_in_progress and self._turns < _TURNS_MAX

    def _take(self, fast_path: FastPath, data: bytes) -> bool:
        taken = fast_path.take(data, self._server.clock.now(), self.peer)
        if taken is None:
            return False
        request, rest = taken
        if rest and request.head.closes:
            return False  # what comes after the last request is an error, and aiohttp says so
        self._hot = True
        self._turns = 0
        if self.slot:
            self._server.deadlines.forget(self)
        self.persistent = not request.head.closes
        self.minor = 1
        self.wants_trailers = False
        if rest:
            self._keep(rest)
        if request.missing:
            self._incoming = request
            timeouts = self._server.timeouts
            self._heard = self._loop.time()
            self._body_by = self._heard + timeouts.body
            self._watch(min(timeouts.silence, timeouts.body))
        self._server.begin(self, request)
        return True

    def _more(self, data: bytes) -> None:
        request = self._incoming
        if request is None:
            if self.persistent:  # after the last request nothing is read any more
                self._keep(data)
            return
        if self._exchange is None:
            request.skip(data)
            if not request.missing:
                self._close_answered()
            return
        rest = request.add(data)
        if rest:
            self._keep(rest)
        now, timeouts = self._loop.time(), self._server.timeouts
        self._heard = now
        self._body_by = now + timeouts.body_left(self._body_by - now, len(data))
        if not request.missing:
            self._incoming = None
            self._server.deadlines.forget(self)
        self._server.more(request)

    def _close_answered(self) -> None:
        """The rest of a body that nobody wants has come, or was waited for long enough."""
        self._incoming = None
        self._server.deadlines.forget(self)
        self._next()

    def _keep(self, data: bytes) -> None:
        self._later.append(data)
        self._later_size += len(data)
        if self._later_size > _LATER_MAX and self.transport is not None:
            self.transport.pause_reading()

    def _next(self) -> None:
        """A hot request was answered."""
        if self._incoming is not None:
            # It was refused before its body had come. To close now would reset the connection,
            # and the client might never read why.
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
        self._not_idle()
        if self._later:
            data = b"".join(self._later)
            self._later.clear()
            if self._later_size > _LATER_MAX:
                transport.resume_reading()
            self._later_size = 0
            self.data_received(data)
        if self._half_closed:
            self._close_after_last()

    def close(self) -> None:
        """aiohttp: no further request is taken; one that the fast path has comes to its end."""
        if self._hot:
            self._close = True
        else:
            super().close()

    def _process_keepalive(self) -> None:
        """aiohttp: the connection may have been idle for too long."""
        if self._hot:
            self._not_idle()
        super()._process_keepalive()

    def _not_idle(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    # --- clients that stop in the middle ------------------------------------------------------

    def _watch(self, seconds: float) -> None:
        self._server.deadlines.watch(self, self._loop.time() + seconds)

    def due(self) -> None:
        """A client has not sent what it began to send. See `Watched`."""
        request, server = self._incoming, self._server
        if request is not None:
            if self._exchange is None:
                self._close_answered()
                return
            timeouts, now = server.timeouts, self._loop.time()
            silent_at = self._heard + timeouts.silence
            left = min(silent_at, self._body_by) - now
            if left > _SOON:
                self._watch(left)
            elif request.exchange is not None:
                request.exchange.stop(body_too_slow(timeouts, silent=silent_at <= self._body_by))
        elif self._head_size and not (self._request_in_progress or self._messages):
            seconds = server.timeouts.head
            self._refused = True
            message = f"the request's head took more than {seconds:g} s"
            self.write(self._server.refusal(self._head_start, self.peer, 408, message, None))
            self._hang_up()

    def _hang_up(self) -> None:
        transport = self.transport
        self.close()
        if transport is not None:
            transport.close()

    # --- aiohttp's way ----------------------------------------------------------------------

    def begins(self) -> None:
        """aiohttp begins with a request: the last one of a client that has closed its side?"""
        if self._half_closed and not self._messages:
            self.close()

    def hand_to_aiohttp(self, data: bytes) -> None:
        """Let aiohttp read. Counts the bytes of an unfinished head."""
        self._untouched = False
        if self._refused:
            return  # the rest of what will be answered with an error
        between = self._last_payload is None or self._last_payload.is_eof()
        if between and not self._head_size:
            self._head_start = data
        super().data_received(data)
        if self._request_count != self._seen:
            self._seen = self._request_count
            self._head_size = 0
            if self.slot:
                self._server.deadlines.forget(self)
            if self._messages:
                message, self._last_payload = self._messages[-1]
                self._refused = isinstance(message, _ErrInfo)
            if not self._refused:
                self._head_start = b""  # it holds a whole read, perhaps with a large body
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
        """Answer what aiohttp's parser refused, or what a handler let escape."""
        too_long = isinstance(exc, LineTooLong) or "Too many" in (message or "")
        text = str(message or exc or "").splitlines()
        reason = text[0].rstrip(":") if text else ""
        begun = isinstance(request, Request) and request.begun
        self._write_refusal(431 if too_long else status, reason, exc, mid_answer=begun)
        return WRITTEN_CLOSE

    def _refuse_head(self) -> None:
        if self._request_in_progress or self._messages:
            self.force_close()  # an answer here would mix with the one that is under way
            return
        self._write_refusal(431, "", None)
        self._hang_up()

    def _write_refusal(
        self, status: int, message: str, exc: BaseException | None, *, mid_answer: bool = False
    ) -> None:
        answer = self._server.refusal(self._head_start, self.peer, status, message, exc)
        if not mid_answer:
            self.write(answer)


def _unsent(transport: asyncio.WriteTransport) -> bool:
    """Whether the client's side has not acknowledged all that was written."""
    if transport.get_write_buffer_size():
        return True
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    try:
        waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # a system that does not say; a socket that is closed
        return False
    return int.from_bytes(waiting, sys.byteorder) > 0


class AiohttpServer(web.Server):
    """aiohttp's low-level server, making our connections.

    `head_max` bounds a request's head, in bytes; `refusal` makes the answer to bytes that are no
    request: from the first bytes received, the client's address, the status, the parser's message
    and, where a handler let one escape, the exception. `begin` answers a hot request, whose body
    may still be coming: then `more` is told of each piece. `lingering` is how many seconds the rest
    of a body is read and thrown away that was refused.
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
        """Who takes hot requests; None to leave all to aiohttp."""

    def limit(self, *, head_max: int, timeouts: ClientTimeouts, connections_max: int) -> None:
        """Other limits, for connections that are made from now on."""
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
                fault = "its Host is not a host with or without a port"
        if not message.path.startswith("/") and message.path != "*" and not fault:
            message, fault = self._in_origin_form(message, protocol)
        cast(Connection, protocol).begins()
        request = Request(message, payload, protocol, writer, task, self._loop)
        request.fault = fault
        return request

    def _in_origin_form(
        self, message: RawRequestMessage, protocol: RequestHandler
    ) -> tuple[RawRequestMessage, str]:
        """A message with an absolute target as if it had named the path, and what is wrong with it.

        What the target says of the host counts, not the Host field (RFC 9112, section 3.2.2).
        """
        absolute = split_absolute(message.path)
        if absolute is None:
            return message, "its target is neither a path nor an http:// URL"
        authority, target = absolute
        here = protocol.sockname
        address, port = (str(here[0]), here[1]) if isinstance(here, tuple) else ("", 0)
        if not is_own(authority, address, port, self._hostname):
            return message, "it is for another server, and this one is no forward proxy"
        if target == "/" and message.method == "OPTIONS" and not message.path.endswith("/"):
            target = "*"  # RFC 9112, section 3.2.4
        path, _, query = target.partition("?")
        raw = [each for each in message.raw_headers if each[0].lower() != b"host"]
        headers = CIMultiDict(message.headers)
        headers["Host"] = authority
        return message._replace(
            path=target,
            url=URL.build(path=path, query_string=query, encoded=True) if path != "*" else URL("*"),
            headers=CIMultiDictProxy(headers),
            raw_headers=((b"Host", authority.encode()), *raw),
        ), ""

    def __call__(self) -> RequestHandler:
        """A new connection's protocol."""
        return Connection(self, loop=self._loop, **self._kwargs)
