"""Connections to endpoints: an HTTP/1.1 client on asyncio protocols, and a keep-alive pool.

One connection carries one request at a time and hands what comes back to a `Receiver`, in the
event loop's callback, without a task or a future per piece. Knows framing, not meaning; what to
do with an answer is the attempt's and the relay's business.
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
"""Idle connections kept per address. More are closed as they come back."""
_JOINED_MAX = 16384
"""Up to this size, bytes, copying a body costs less than sending two pieces."""
_KEEP_ALIVE_MARGIN = 0.5
"""Seconds before the end of an announced keep-alive at which a connection is given up."""

Address = tuple[str, int, bool]


class Receiver(Protocol):
    """Who gets what comes back on a connection."""

    def head(self, head: ResponseHead, more: bool) -> None:
        """The head is complete; `more` says that body bytes of the same read follow at once."""
        ...

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Body bytes, as they came (`raw`, without what ends a chunked body) and unframed; `last`
        says that `end` follows at once."""
        ...

    def end(self, trailers: bytes) -> None:
        """The body is complete as far as the framing goes."""
        ...

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """It will not become complete. `raw` and `payload` came in the same read before the
        fault; see `body`."""
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
        """Whether it served a request before this one."""
        self.expires = 0.0
        """When it should no longer be used, in the loop's time."""
        self.last_data = 0.0
        """When the request was sent, or the endpoint last sent something of its answer, in the
        loop's time. The beginning of a head does not count: it may never become whole."""
        self.head: ResponseHead | None = None
        self.sent = False
        """The request was sent completely."""
        self.receiver: Receiver | None = None
        """Who gets what comes; None while the connection is idle."""
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
        """Whether a request may be sent on it."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def heard(self) -> bool:
        """Whether any byte of the answer has come."""
        return self.head is not None or bool(self._buffer)

    @property
    def scanner(self) -> Scanner | None:
        """The scanner of the body that is coming, once the head is there."""
        return self._scanner

    # --- the request ------------------------------------------------------------------------

    def begin(self, method: str, receiver: Receiver) -> None:
        """Take the connection for one request; its answer goes to `receiver`."""
        self._method = method
        self.receiver = receiver
        self.head = None
        self._scanner = None
        self.sent = False
        self.last_data = self._loop.time()

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes of the request."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def write_all(self, head: bytes, body: bytes) -> None:
        """Send a whole request, with one call to the kernel."""
        if self.transport is not None and not self.transport.is_closing():
            if len(body) <= _JOINED_MAX:
                self.transport.write(head + body)
            else:
                self.transport.writelines((head, body))

    async def drained(self) -> None:
        """Wait until the endpoint has taken enough of what was written."""
        if self._drained is not None:
            await self._drained

    def pause_reading(self) -> None:
        """Let the endpoint wait: the client is slow."""
        if self.usable and not self._paused:
            self._paused = True
            cast(asyncio.Transport, self.transport).pause_reading()

    def resume_reading(self) -> None:
        """Take more from the endpoint."""
        if self.usable and self._paused:
            self._paused = False
            self.last_data = self._loop.time()
            cast(asyncio.Transport, self.transport).resume_reading()

    @property
    def paused(self) -> bool:
        """Whether the endpoint is made to wait: its silence is no sign of anything then."""
        return self._paused

    def abort(self) -> None:
        """Hang up at once: this is what stops the work on the endpoint."""
        self.receiver = None
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pool.made(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        if self.receiver is None:
            # Nobody asked: a 408 before an idle close, or rubbish. Either way it is spoiled.
            self.abort()
            return
        if self._scanner is None:
            self._take_head(data)
        else:
            self.last_data = self._loop.time()
            self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._pool.gone(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._settle(exc)

    def _settle(self, exc: Exception | None) -> None:
        if self.receiver is None:
            return
        if self._scanner is None:
            self._break(Kind.RESET, "closed the connection before it answered")
        elif exc is None and self._scanner.eof():
            self._finish()
        elif exc is None:
            self._break(Kind.BODY_TRUNCATED, "closed the connection in the middle of its answer")
        else:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            self._break(Kind.BODY_RESET, f"broke off in the middle of its answer ({why})")

    def eof_received(self) -> None:
        """The endpoint has closed its side; None has the transport close ours."""

    def pause_writing(self) -> None:
        """The endpoint is slow in taking the request."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # --- the answer -------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                if len(data) > HEAD_MAX:
                    self._break(Kind.BAD_HEAD, f"sent a head of more than {HEAD_MAX} bytes")
                elif data[:5] != b"HTTP/"[: len(data)]:
                    self._break(Kind.BAD_HEAD, f"answered {data[:60]!r}, which is not HTTP")
                return
            if end > HEAD_MAX:
                self._break(Kind.BAD_HEAD, f"sent a head of more than {HEAD_MAX} bytes")
                return
            try:
                head = self._pool.heads.parse(data[:end], self._method)
            except BadHead as error:
                self._break(Kind.BAD_HEAD, f"sent a bad head: {error}")
                return
            data = data[end + 4 :]
            if head.status == 101:
                self._break(Kind.BAD_HEAD, "switched protocols although nobody asked it to")
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
                message = f"sent a broken body: {error}"
                self._break(Kind.BODY_FRAMING, message, error.passed, payload)
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
        self.resume_reading()  # or an idle connection would not notice that it was closed
        if self.sent and head.keep_alive and not scanner.leftover and self.usable:
            self._pool.give_back(self, head.keep_alive_seconds)
        elif self.transport is not None:
            self.transport.close()
        receiver.end(scanner.trailers)

    def _break(
        self, kind: Kind, message: str, raw: bytes = b"", payload: list[bytes] | None = None
    ) -> None:
        receiver = cast(Receiver, self.receiver)
        self.abort()
        receiver.broken(kind, message, raw, payload or [])


class Pool:
    """Idle connections by address, and the making of new ones.

    Times are seconds: `connect_timeout` bounds name lookup, connection and TLS handshake
    together; `idle_timeout` how long an idle connection is kept.
    """

    def __init__(self, clock: Clock, *, connect_timeout: float, idle_timeout: float) -> None:
        self._clock = clock
        self.loop = asyncio.get_running_loop()
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        self._idle: dict[Address, deque[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()
        self._all_gone = asyncio.Event()
        self._tls: ssl.SSLContext | None = None
        self._resolver = Resolver()
        self.heads = HeadParser()
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Connections that stand, idle ones included."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return sum(len(each) for each in self._idle.values())

    def take_idle(self, spec: EndpointSpec) -> UpstreamConnection | None:
        """An idle connection to the endpoint, the one used last; None when there is none."""
        waiting = self._idle.get((spec.host, spec.port, spec.tls))
        while waiting:
            connection = waiting.pop()
            if connection.usable and connection.expires > self.loop.time():
                connection.reused = True
                return connection
            connection.abort()
        return None

    async def connect(self, spec: EndpointSpec) -> UpstreamConnection:
        """A new connection to the endpoint.

        Raises:
            Failed: it could not be made; the failure says why.
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
        """Raises OSError: at none of its addresses."""
        if spec.tls and self._tls is None:
            # It reads all the certificates that the system trusts: some 20 ms.
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
                raise  # somebody is there
            except OSError as error:
                refused = refused or error
            else:
                return
        assert refused is not None
        raise refused

    def give_back(self, connection: UpstreamConnection, keep_alive_seconds: float | None) -> None:
        """Keep a connection whose answer is complete for the next request."""
        waiting = self._idle.setdefault(connection.address, deque())
        if len(waiting) >= _IDLE_MAX:
            connection.abort()
            return
        lifetime = self.idle_timeout
        if keep_alive_seconds is not None:
            lifetime = min(lifetime, keep_alive_seconds - _KEEP_ALIVE_MARGIN)
        connection.expires = self.loop.time() + lifetime
        waiting.append(connection)
        if self._sweep is None:
            self._sweep = self.loop.call_later(self.idle_timeout, self._sweep_idle)

    def made(self, connection: UpstreamConnection) -> None:
        """A connection stands."""
        self._open.add(connection)

    def gone(self, connection: UpstreamConnection) -> None:
        """A connection was lost."""
        self._open.discard(connection)
        if not self._open:
            self._all_gone.set()
        waiting = self._idle.get(connection.address)
        if waiting is not None and connection in waiting:
            waiting.remove(connection)
            if not waiting:
                del self._idle[connection.address]

    async def close(self) -> None:
        """Hang up everywhere, and wait until every connection is gone."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._open):
            connection.abort()
        if self._open:  # aborted transports report back in the loop's next turns
            self._all_gone.clear()
            await self._all_gone.wait()

    def _sweep_idle(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for waiting in list(self._idle.values()):
            for connection in [each for each in waiting if each.expires <= now]:
                connection.abort()
        if self.idle:
            self._sweep = self.loop.call_later(self.idle_timeout, self._sweep_idle)


_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose texts have the
address in them."""


def connect_failure(spec: EndpointSpec, error: OSError, timeout: float) -> Failure:
    """The failure to report; `timeout` is how many seconds were waited at most."""
    if error.errno in OURS:
        return overloaded(
            f"no connection to an endpoint can be made ({error.strerror})", "the open files limit"
        )
    name = spec.name
    which = f"endpoint '{name}'"
    if isinstance(error, TimeoutError):
        message = f"did not accept a connection within {timeout:g} s (proxy.connection_timeout)"
        return Failure(Kind.CONNECT_TIMEOUT, f"{which} {message}", name)
    if isinstance(error, socket.gaierror):
        message = f"cannot be connected to: its host name cannot be resolved ({error.strerror})"
        return Failure(Kind.CONNECT_DNS, f"{which} {message}", name)
    if isinstance(error, ssl.SSLError):
        message = f"cannot be connected to: the TLS handshake failed ({_tls_reason(error)})"
        return Failure(Kind.CONNECT_TLS, f"{which} {message}", name)
    # With several addresses behind a name, asyncio folds the errors into one text.
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return Failure(Kind.CONNECT_REFUSED, f"{which} refused the connection", name)
    return Failure(Kind.CONNECT_UNREACHABLE, f"{which} cannot be reached ({_reason(error)})", name)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return "the certificate is for another name"
        return error.verify_message
    reason: str | None = getattr(error, "reason", None)
    return (reason or "no reason was given").lower().replace("_", " ")


def _reason(error: OSError) -> str:
    if error.errno is None or error.errno <= 0:
        return "no connection could be made"
    return os.strerror(error.errno).lower()
