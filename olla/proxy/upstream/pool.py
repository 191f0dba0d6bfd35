"""Connections to endpoints: an HTTP/1.1 client on asyncio protocols, and a keep-alive pool.

A connection carries one request at a time and passes the response to a `Receiver` in the event
loop's callback, without a task or a future per piece. It handles framing only; the attempt and the
relay interpret the response.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from typing import Protocol, cast

from olla.clock import Clock
from olla.failures import OURS, Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.connection_limit import overloaded
from olla.proxy.http.framing import FramingError, Scanner
from olla.proxy.http.response_head import HEAD_MAX, BadHead, HeadParser, ResponseHead
from olla.resolver import Resolver
from olla.tasks import in_thread

__all__ = ["Pool", "Receiver", "UpstreamConnection", "connect_failure"]

_IDLE_MAX = 256
"""Idle connections kept per address. Further ones are closed when they are released."""
_COPY_MAX = 16384
"""Bytes. Up to this size, copying a body costs less than sending two pieces."""
_KEEP_ALIVE_MARGIN = 0.5
"""Seconds before the end of an announced keep-alive at which a connection expires."""

Address = tuple[str, int, bool]


class Receiver(Protocol):
    """Receives the response on a connection."""

    def head(self, head: ResponseHead, more: bool) -> None:
        """Called with the complete head; `more` says that `body` is called at once."""
        ...

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Called with body bytes: `raw` as received (without the end of a chunked body), and the
        unframed `payload`. `last` says that `end` is called at once."""
        ...

    def end(self, trailers: bytes) -> None:
        """Called when the body is complete according to its framing."""
        ...

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """Called when the response cannot be completed. `raw` and `payload` are the bytes before
        the fault in the same read, see `body`."""
        ...


class UpstreamConnection:
    """One connection to an endpoint."""

    __slots__ = (
        "_buffer",
        "_drained",
        "_loop",
        "_method",
        "_paused",
        "_pool",
        "_scanner",
        "address",
        "expires",
        "head",
        "last_data",
        "receiver",
        "reused",
        "sent",
        "transport",
    )

    def __init__(self, pool: "Pool", address: Address, loop: asyncio.AbstractEventLoop):
        self._pool = pool
        self._loop = loop
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.reused = False
        """Whether it has served a request before this one."""
        self.expires = 0.0
        """When the idle connection expires, in the loop's time."""
        self.last_data = 0.0
        """When the request was sent or the last response data arrived, in the loop's time. Part of
        a head does not count, because it may never become complete."""
        self.head: ResponseHead | None = None
        self.sent = False
        """Whether the request was sent completely."""
        self.receiver: Receiver | None = None
        """The receiver of the response; None while the connection is idle."""
        self._scanner: Scanner | None = None
        self._buffer = b""
        self._method = ""
        self._drained: asyncio.Future[None] | None = None
        self._paused = False

    def __repr__(self) -> str:
        state = "idle" if self.receiver is None else "in use"
        if self.transport is None or self.transport.is_closing():
            state = "closed"
        return f"<UpstreamConnection to {self.address[0]}:{self.address[1]}, {state}>"

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def has_response_bytes(self) -> bool:
        """Whether any byte of the response has arrived."""
        return self.head is not None or bool(self._buffer)

    @property
    def scanner(self) -> Scanner | None:
        """The scanner of the response's body; None before the head is complete."""
        return self._scanner

    # --- the request ------------------------------------------------------------------------

    def begin(self, method: str, receiver: Receiver) -> None:
        """Start a request; its response goes to `receiver`."""
        self._method = method
        self.receiver = receiver
        self.head = None
        self._scanner = None
        self.sent = False
        self.last_data = self._loop.time()

    def write(self, data: bytes | memoryview) -> None:
        """Send part of the request."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def write_all(self, head: bytes, body: bytes) -> None:
        """Send a whole request in one system call."""
        if self.transport is not None and not self.transport.is_closing():
            if len(body) <= _COPY_MAX:
                self.transport.write(head + body)
            else:
                self.transport.writelines((head, body))

    async def drained(self) -> None:
        """Wait until the write buffer has drained."""
        if self._drained is not None:
            await self._drained

    def pause_reading(self) -> None:
        """Stop reading from the endpoint, because the client is slow."""
        if self.usable and not self._paused:
            self._paused = True
            cast(asyncio.Transport, self.transport).pause_reading()

    def resume_reading(self) -> None:
        """Continue reading from the endpoint."""
        if self.usable and self._paused:
            self._paused = False
            self.last_data = self._loop.time()
            cast(asyncio.Transport, self.transport).resume_reading()

    @property
    def paused(self) -> bool:
        """Whether reading is paused. The endpoint's silence then means nothing."""
        return self._paused

    def abort(self) -> None:
        """Close the connection at once, which makes the endpoint stop its work."""
        self.receiver = None
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Handle the new connection: set TCP_NODELAY and register with the pool."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the response."""
        if self.receiver is None:
            # Unsolicited bytes, such as a 408 before an idle close: the connection is unusable.
            self.abort()
            return
        if self._scanner is None:
            self._take_head(data)
        else:
            self.last_data = self._loop.time()
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._pool.closed(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._end_by_close(exc)

    def _end_by_close(self, exc: Exception | None) -> None:
        if self.receiver is None:
            return
        if self._scanner is None:
            self._fail(Kind.RESET, "closed the connection before it sent a response")
        elif exc is None and self._scanner.eof():
            self._finish()
        elif exc is None:
            self._fail(Kind.BODY_TRUNCATED, "closed the connection in the middle of its response")
        else:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            self._fail(Kind.BODY_RESET, f"disconnected in the middle of its response ({why})")

    def eof_received(self) -> None:
        """Handle the endpoint's end of file. Returning None makes the transport close."""

    def pause_writing(self) -> None:
        """Handle a full write buffer."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Handle a drained write buffer."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # --- the response -----------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                if len(data) > HEAD_MAX:
                    self._fail(Kind.BAD_HEAD, f"sent a head of more than {HEAD_MAX} bytes")
                elif data[:5] != b"HTTP/"[: len(data)]:
                    self._fail(Kind.BAD_HEAD, f"sent {data[:60]!r}, which is not HTTP")
                return
            if end > HEAD_MAX:
                self._fail(Kind.BAD_HEAD, f"sent a head of more than {HEAD_MAX} bytes")
                return
            try:
                head = self._pool.heads.parse(data[:end], self._method)
            except BadHead as error:
                self._fail(Kind.BAD_HEAD, f"sent an invalid head: {error}")
                return
            data = data[end + 4 :]
            if head.status == 101:
                self._fail(Kind.BAD_HEAD, "switched protocols without being asked to (status 101)")
                return
            if head.status >= 200:
                break
        self._buffer = b""
        self.last_data = self._loop.time()
        self.head = head
        self._scanner = head.scanner()
        receiver = cast(Receiver, self.receiver)
        receiver.head(head, bool(data))
        if self.receiver is not None:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        scanner = cast(Scanner, self._scanner)
        receiver = cast(Receiver, self.receiver)
        if data:
            payload: list[bytes] = []
            try:
                raw = scanner.feed(data, payload)
            except FramingError as error:
                message = f"sent an invalid body: {error}"
                self._fail(Kind.BODY_FRAMING, message, error.passed, payload)
                return
            if raw or payload:
                receiver.body(raw, payload, scanner.done)
        if scanner.done and self.receiver is not None:
            self._finish()

    def _finish(self) -> None:
        receiver = cast(Receiver, self.receiver)
        scanner = cast(Scanner, self._scanner)
        head = cast(ResponseHead, self.head)
        self.receiver = None
        self.resume_reading()  # otherwise a close of the idle connection would go unnoticed
        if self.sent and head.keep_alive and not scanner.leftover and self.usable:
            self._pool.release(self, head.keep_alive_seconds)
        elif self.transport is not None:
            self.transport.close()
        receiver.end(scanner.trailers)

    def _fail(
        self, kind: Kind, message: str, raw: bytes = b"", payload: list[bytes] | None = None
    ) -> None:
        receiver = cast(Receiver, self.receiver)
        self.abort()
        receiver.broken(kind, message, raw, payload or [])


class Pool:
    """Opens connections and keeps idle ones by address.

    Times are in seconds: `connect_timeout` limits name lookup, connection and TLS handshake
    together; `idle_timeout` limits how long an idle connection is kept.
    """

    def __init__(self, clock: Clock, *, connect_timeout: float, idle_timeout: float) -> None:
        self._clock = clock
        self.loop = asyncio.get_running_loop()
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        self._idle: dict[Address, deque[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()
        self._all_closed = asyncio.Event()
        self._tls: ssl.SSLContext | None = None
        self._resolver = Resolver()
        self.heads = HeadParser()
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """The number of open connections, including idle ones."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """The number of idle connections."""
        return sum(len(each) for each in self._idle.values())

    def take_idle(self, spec: EndpointSpec) -> UpstreamConnection | None:
        """Return the most recently used idle connection to the endpoint, or None."""
        idle = self._idle.get((spec.host, spec.port, spec.tls))
        while idle:
            connection = idle.pop()
            if connection.usable and connection.expires > self.loop.time():
                connection.reused = True
                return connection
            connection.abort()
        return None

    async def connect(self, spec: EndpointSpec) -> UpstreamConnection:
        """Open a new connection to the endpoint.

        Raises:
            Failed: it could not be opened; the failure has the reason.
        """
        address = (spec.host, spec.port, spec.tls)
        connection = UpstreamConnection(self, address, self.loop)
        try:
            async with asyncio.timeout(self.connect_timeout):
                await self._connect(connection, spec)
        except (OSError, TimeoutError) as error:
            raise Failed(connect_failure(spec, error, self.connect_timeout)) from None
        return connection

    async def _connect(self, connection: UpstreamConnection, spec: EndpointSpec) -> None:
        """Connect to the first reachable address of the endpoint.

        Raises:
            OSError: no address could be reached, or the TLS handshake failed.
        """
        if spec.tls and self._tls is None:
            # In a thread: reading the system's trusted certificates takes about 20 ms.
            self._tls = await in_thread(ssl.create_default_context)
        refused: OSError | None = None
        for address in await self._resolver.addresses(spec.host):
            try:
                await self.loop.create_connection(
                    lambda: cast(asyncio.Protocol, connection),
                    address.host,
                    spec.port,
                    ssl=self._tls if spec.tls else None,
                    server_hostname=spec.host if spec.tls else None,
                )
            except ssl.SSLError:
                raise  # the address was reached, so do not try the others
            except OSError as error:
                refused = refused or error
            else:
                return
        assert refused is not None
        raise refused

    def release(self, connection: UpstreamConnection, keep_alive_seconds: float | None) -> None:
        """Keep a connection with a complete response for the next request."""
        idle = self._idle.setdefault(connection.address, deque())
        if len(idle) >= _IDLE_MAX:
            connection.abort()
            return
        lifetime = self.idle_timeout
        if keep_alive_seconds is not None:
            lifetime = min(lifetime, keep_alive_seconds - _KEEP_ALIVE_MARGIN)
        connection.expires = self.loop.time() + lifetime
        idle.append(connection)
        if self._sweep is None:
            self._sweep = self.loop.call_later(self.idle_timeout, self._sweep_idle)

    def opened(self, connection: UpstreamConnection) -> None:
        """Register an opened connection."""
        self._open.add(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)
        if not self._open:
            self._all_closed.set()
        idle = self._idle.get(connection.address)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.address]

    async def close(self) -> None:
        """Close all connections and wait until they are closed."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._open):
            connection.abort()
        if self._open:  # aborted transports call `connection_lost` in a later iteration
            self._all_closed.clear()
            await self._all_closed.wait()

    def _sweep_idle(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for idle in list(self._idle.values()):
            for connection in [each for each in idle if each.expires <= now]:
                connection.abort()
        if self.idle:
            self._sweep = self.loop.call_later(self.idle_timeout, self._sweep_idle)


_NAME_MISMATCH = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose messages contain
the address."""


def connect_failure(spec: EndpointSpec, error: OSError, timeout: float) -> Failure:
    """Return the failure to report for a connection error; `timeout` is the limit in seconds."""
    if error.errno in OURS:
        return overloaded(
            f"cannot open a connection to an endpoint ({error.strerror})", "the open files limit"
        )
    name = spec.name
    which = f"endpoint '{name}'"
    if isinstance(error, TimeoutError):
        message = f"did not accept a connection within {timeout:g} s (proxy.connection_timeout)"
        return Failure(Kind.CONNECT_TIMEOUT, f"{which} {message}", name)
    if isinstance(error, socket.gaierror):
        message = f"cannot be reached: its host name cannot be resolved ({error.strerror})"
        return Failure(Kind.CONNECT_DNS, f"{which} {message}", name)
    if isinstance(error, ssl.SSLError):
        message = f"cannot be reached: the TLS handshake failed ({_tls_reason(error)})"
        return Failure(Kind.CONNECT_TLS, f"{which} {message}", name)
    # For a name with several addresses, asyncio merges the errors into one text.
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return Failure(Kind.CONNECT_REFUSED, f"{which} refused the connection", name)
    return Failure(Kind.CONNECT_UNREACHABLE, f"{which} cannot be reached ({_reason(error)})", name)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NAME_MISMATCH:
            return "the certificate does not match the host name"
        return error.verify_message
    reason: str | None = getattr(error, "reason", None)
    return (reason or "unknown reason").lower().replace("_", " ")


def _reason(error: OSError) -> str:
    if error.errno is None or error.errno <= 0:
        return "connection failed"
    return os.strerror(error.errno).lower()
