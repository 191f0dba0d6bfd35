"""The client's side: the aiohttp server, and what it hands to exchanges and surfaces.

Takes a request in, finds out who answers (an exchange with an endpoint, or one of olla's own
surfaces), and sees that each is counted and recorded once. The bytes of a relayed answer go to
the connection's transport directly; aiohttp writes the surfaces' answers.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_exceptions import HTTPException

from olla.dialects.dialect import Operation
from olla.dialects.paths import Paths, Target, WrongMethod
from olla.failures import Failed, Failure, Kind
from olla.proxy.aiohttp_internals import Connection, Server, written
from olla.proxy.error_response import error_answer
from olla.proxy.exchange import Exchange, request_id
from olla.proxy.headers import seconds
from olla.proxy.stations import Stations
from olla.record import RequestRecord

__all__ = ["Downstream", "OperationSurface", "Surface"]

Surface = Callable[[web.BaseRequest], Awaitable[web.Response]]
"""Answers one of olla's own paths."""
OperationSurface = Callable[[web.BaseRequest, Target], Awaitable[web.Response]]
"""Answers an operation of a dialect for the whole fleet."""

_REQUEST_LINE = re.compile(rb"[A-Z]+ ([^ \r\n]{1,2048})")
_READ_SIZE = 262144
_LINGER = 3.0
"""Seconds in which the rest of a refused body is read and thrown away: closing at once would
reset the connection, and the client might never see why."""


class Downstream:
    """Serves clients."""

    def __init__(
        self,
        stations: Stations,
        paths: Paths,
        *,
        surfaces: Mapping[str, Surface],
        operations: Mapping[Operation, OperationSurface],
        head_max: int,
        idle_timeout: float,
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`surfaces` by exact path, `operations` answered for the fleet; `head_max` is bytes,
        `idle_timeout` the seconds a connection may be silent between requests."""
        self._stations = stations
        self._paths = paths
        self._surfaces = surfaces
        self._operations = operations
        self._logger = logger
        self._exchanges: set[Exchange] = set()
        self._answering = 0
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self.draining = False
        self.server = Server(
            self._handle,
            head_max=head_max,
            refusal=self._refusal,
            keepalive_timeout=idle_timeout,
            read_bufsize=_READ_SIZE,
            lingering_time=_LINGER,
        )

    @property
    def connections(self) -> int:
        """Clients' connections that stand."""
        return len(self.server.connections)

    @property
    def active(self) -> int:
        """Requests being answered."""
        return self._answering

    async def drain(self, timeout: float) -> None:
        """Finish what is running, for `timeout` seconds at most, then end it with an error."""
        self.draining = True
        self.server.pre_shutdown()
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            for exchange in list(self._exchanges):
                exchange.stop(
                    Failure(
                        Kind.DRAINING, "the router is shutting down; try again", retry_after=1.0
                    )
                )
        await self.server.shutdown(timeout=1.0)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._answering += 1
        self._idle.clear()
        try:
            return await self._answer(request)
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        surface = self._surfaces.get(request.raw_path.partition("?")[0])
        if surface is not None:
            return await surface(request)
        stations = self._stations
        incoming = AiohttpIncoming(request)
        record = RequestRecord(
            id=request_id(incoming, stations),
            method=request.method,
            path=request.raw_path.partition("?")[0],
            client=incoming.peer,
            started=stations.clock.now(),
            started_wall=stations.clock.wall(),
        )
        client = AiohttpDownstream(request, keep_alive=request.keep_alive and not self.draining)
        try:
            target = self._paths.resolve(request.method, request.raw_path)
            answer = self._operations.get(target.operation)
            if answer is not None:
                return await self._from_surface(answer, request, target, record)
            exchange = Exchange(stations, incoming, client, target, record)
            self._exchanges.add(exchange)
            try:
                await exchange.run()
            finally:
                self._exchanges.discard(exchange)
        except WrongMethod as wrong:
            allow = ("Allow", ", ".join(wrong.allowed))
            self._write_failure(wrong.failure, request, client, record, allow)
        except Failed as failed:
            self._write_failure(failed.failure, request, client, record)
        except Exception as error:
            self._logger.exception("request failed", id=record.id, path=record.path)
            if isinstance(error, HTTPException):
                raise
            failure = Failure(Kind.INTERNAL, "the router failed at this request; its log has more")
            self._write_failure(failure, request, client, record)
        finally:
            record.ended = stations.clock.now()
            stations.sink(record)
        return written(client.keep_alive)

    async def _from_surface(
        self,
        answer: OperationSurface,
        request: web.BaseRequest,
        target: Target,
        record: RequestRecord,
    ) -> web.StreamResponse:
        record.dialect = target.dialect.name
        record.operation = target.operation.value
        record.strategy = self._stations.admission.dispatcher.options.strategy.value
        response = await answer(request, target)
        record.status = response.status
        record.first_byte = self._stations.clock.now()
        response.headers["X-Olla-Request-ID"] = record.id
        response.headers["X-Olla-Response-Time"] = seconds(record.first_byte - record.started)
        body = response.body
        record.bytes_out = len(body) if isinstance(body, bytes) else 0
        return response

    def _write_failure(
        self,
        failure: Failure,
        request: web.BaseRequest,
        client: "AiohttpDownstream",
        record: RequestRecord,
        *fields: tuple[str, str],
    ) -> None:
        """Answer with a failure that came before there was an exchange."""
        record.failure = failure
        record.status = failure.status
        dialect = self._paths.error_dialect(request.raw_path)
        record.dialect = dialect.name
        if request.body_exists:
            client.keep_alive = False
        client.write(
            error_answer(
                failure,
                dialect,
                [
                    *fields,
                    ("X-Olla-Request-ID", record.id),
                    ("X-Olla-Routing-Decision", "rejected"),
                ],
                keep_alive=client.keep_alive,
                minor=client.minor,
                bodiless=request.method == "HEAD",
            )
        )

    def _refusal(
        self, start: bytes, status: int, message: str, error: BaseException | None
    ) -> bytes:
        """The answer to bytes that aiohttp's parser refused."""
        match = _REQUEST_LINE.match(start)
        path = match[1].decode("latin-1") if match is not None else "/"
        if status == 431 or isinstance(error, LineTooLong):
            failure = Failure(
                Kind.HEADERS_TOO_LARGE,
                f"the request's head is over the limit of {self.server.head_max} bytes "
                "(server.request_limits.max_header_size)",
            )
        elif error is not None and not isinstance(error, HttpProcessingError):
            self._logger.error("request failed", path=path, exc_info=error)
            failure = Failure(Kind.INTERNAL, "the router failed at this request; its log has more")
        else:
            failure = Failure(Kind.BAD_REQUEST, f"this is not an HTTP/1.1 request: {message}")
        stations = self._stations
        now = stations.clock.now()
        dialect = self._paths.error_dialect(path)
        record = RequestRecord(
            id=next(stations.ids),
            method="",
            path=path.partition("?")[0],
            client="",
            started=now,
            started_wall=stations.clock.wall(),
            dialect=dialect.name,
            status=failure.status,
            ended=now,
            failure=failure,
        )
        stations.sink(record)
        return error_answer(
            failure,
            dialect,
            [("X-Olla-Request-ID", record.id)],
            keep_alive=False,
            minor=1,
            bodiless=False,
        )


class AiohttpDownstream:
    """A client's connection in aiohttp's hands, written to directly."""

    __slots__ = ("_protocol", "_transport", "keep_alive", "minor", "wants_trailers")

    def __init__(self, request: web.BaseRequest, *, keep_alive: bool) -> None:
        self._protocol = cast(Connection, request.protocol)
        self._transport = request.transport
        self.keep_alive = keep_alive
        self.minor = 1 if request.version >= (1, 1) else 0
        self.wants_trailers = "trailers" in request.headers.get("TE", "")

    @property
    def closing(self) -> bool:
        """The connection is closed or closing."""
        return self._transport is None or self._transport.is_closing()

    @property
    def paused(self) -> bool:
        """The client is slow."""
        return self._protocol.writing_paused

    def write(self, data: bytes) -> None:
        """Send bytes."""
        # uvloop raises on a transport that has closed but not yet said so.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once the client has caught up."""
        self._protocol.when_drained(callback)


class AiohttpIncoming:
    """A request as aiohttp parsed it."""

    __slots__ = (
        "_continued",
        "_request",
        "has_body",
        "headers",
        "length",
        "method",
        "peer",
        "target",
    )

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._continued = False
        self.method = request.method
        self.target = request.raw_path
        self.peer = request.remote or ""
        self.headers: Sequence[tuple[bytes, bytes]] = request.raw_headers
        self.has_body = request.body_exists
        self.length = request.content_length

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return self._request.headers.get(name)

    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue`."""
        expect = self._request.headers.get("Expect", "")
        return expect.lower() == "100-continue" and self._request.version >= (1, 1)

    def send_continue(self) -> None:
        """Tell it to go on, once."""
        transport = self._request.transport
        if not self._continued and transport is not None and not transport.is_closing():
            self._continued = True
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        content = self._request.content
        try:
            while piece := await content.readany():
                yield piece
        except (HttpProcessingError, web.PayloadAccessError, web.RequestPayloadError) as error:
            raise Failed(
                Failure(Kind.BAD_REQUEST, f"the request's body is not well-formed: {error}")
            ) from None
