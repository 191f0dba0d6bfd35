"""Serve clients: dispatch their requests to exchanges and internal routes.

Accepts requests through aiohttp or the fast path, hands each one to an exchange or an internal
route, and counts and records it once. Relayed responses are written directly to the connection's
transport; aiohttp writes the responses of surfaces.
"""

import asyncio
import re
from collections.abc import Awaitable, Generator, Mapping
from functools import partial
from typing import Final, TypeVar, cast

import aiohttp
import structlog
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError, LineTooLong

from olla.access.caller import is_in
from olla.access.keyring import UnknownKey
from olla.dialects.dialect import Dialect, Operation
from olla.dialects.paths import BodyUse, Paths, Target, WrongMethod
from olla.failures import Failed, Failure, Kind
from olla.fleet.instance import ModelInstance
from olla.fleet.stalls import Progress
from olla.proxy.auth.authenticate import Authenticator, Quota, SurfaceQuota
from olla.proxy.auth.authorize import CATEGORIES, UNAUTHORIZED, authorize
from olla.proxy.background.rerouting import progress_of, reroute
from olla.proxy.bounds.body_budget import STEP, BodyCharge
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.connection_limit import overloaded
from olla.proxy.exchange.context import RequestConfig, Services, Upstreams
from olla.proxy.exchange.exchange import ClientConnection, Exchange
from olla.proxy.http.error_response import add_fields, error_answer, error_response
from olla.proxy.http.raw_response import WRITTEN_CLOSE, written
from olla.proxy.http.request import IncomingRequest, read_body, request_id, too_large
from olla.proxy.internal.routes import InternalRoute, InternalRoutes, OperationSurface
from olla.proxy.internal.subrequest import SubrequestHost, SubrequestIncoming, SubrequestResponse
from olla.proxy.server.aiohttp_check import fault
from olla.proxy.server.aiohttp_internals import AiohttpServer, Connection, Request
from olla.proxy.server.aiohttp_request import AiohttpRequest
from olla.proxy.server.fast_path import FastPath, FastRequest, HotRequest
from olla.record import RequestRecord
from olla.settings.masking import masked
from olla.tasks import spawn

__all__ = ["ProxyServer", "reject"]

T = TypeVar("T")

_REQUEST_LINE = re.compile(rb"[A-Z]+ ([^ \r\n]{1,2048})")
_ORIGIN = re.compile(rb"\r\norigin:[ \t]*([!-~]*)[ \t]*(?=\r\n)", re.IGNORECASE)
_HEAD_READ = 65536
"""Bytes of an unparsable head that are searched for its origin."""
_PREFLIGHTS: Final = SurfaceQuota("preflight")
_VERSIONS = (HttpVersion10, HttpVersion11)
_READ_SIZE = 262144
_SHUTDOWN = 1.0
"""Seconds that connections may take to close at shutdown."""
_LINGER = 3.0
"""Seconds for which the rest of a rejected body is read and discarded. Closing at once would reset
the connection, and the client might never read the response."""


class ProxyServer:
    """Accepts connections and dispatches their requests."""

    def __init__(
        self,
        services: Services,
        upstreams: Upstreams,
        config: RequestConfig,
        paths: Paths,
        *,
        routes: Mapping[str, InternalRoute],
        operations: Mapping[Operation, OperationSurface],
        head_max: int,
        timeouts: ClientTimeouts,
        connections_max: int,
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`routes` are the internal routes by path, see `InternalRoutes`. `operations` are those
        answered for the whole fleet. `head_max` is in bytes; `connections_max` limits the open
        connections."""
        self._services = services
        self._upstreams = upstreams
        self._config = config
        self._paths = paths
        self.internal_routes = InternalRoutes(
            services, config, paths=routes, operations=operations, sender=self, logger=logger
        )
        self._logger = logger
        self._exchanges: set[Exchange] = set()
        self._answering = 0
        self._all_answered: asyncio.Event | None = None
        self.draining = False
        self.server = AiohttpServer(
            self._handle,
            head_max=head_max,
            refusal=self._parser_rejection,
            begin=self._begin_hot,
            more=self._more_hot,
            clock=services.clock,
            deadlines=services.timers,
            timeouts=timeouts,
            connections_max=connections_max,
            read_bufsize=_READ_SIZE,
            lingering=_LINGER,
        )

    async def enable_fast_path(self) -> None:
        """Handle hot requests without aiohttp, if the installed aiohttp works as expected."""
        why = await fault(self.server)
        if why is None:
            self.server.fast_path = self._new_fast_path()
        else:
            self._logger.warning(
                "fast path disabled, aiohttp is not compatible",
                aiohttp=aiohttp.__version__,
                why=why,
            )

    def _new_fast_path(self) -> FastPath:
        return FastPath(
            self._paths,
            self._config.max_body,
            self.internal_routes.is_internal,
            self._config.guard,
            self._is_proxy,
        )

    @property
    def connections(self) -> int:
        """Number of open client connections."""
        return len(self.server.connections)

    @property
    def active(self) -> int:
        """Number of requests being answered."""
        return self._answering

    def renew(
        self, config: RequestConfig, paths: Paths, routes: Mapping[str, InternalRoute]
    ) -> None:
        """Use another configuration and other paths for future requests."""
        self._paths = paths
        self.internal_routes.paths = routes
        self.use(config)

    def use(self, config: RequestConfig) -> None:
        """Use another configuration for future requests."""
        self._config = self.internal_routes.config = config
        if self.server.fast_path is not None:
            self.server.fast_path = self._new_fast_path()

    async def drain(self, timeout: float) -> None:
        """Finish in-flight requests for `timeout` seconds at most, then end them with an error.

        Open connections are closed afterwards only. Until then a new request on one of them gets
        an error response, which clients handle better than a closed connection.
        """
        self.draining = True
        self._all_answered = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                if self._answering:
                    await self._all_answered.wait()
        except TimeoutError:
            for exchange in list(self._exchanges):
                exchange.stop(_draining())
        self.server.pre_shutdown()  # otherwise shutdown waits for idle connections
        await self.server.shutdown(timeout=_SHUTDOWN)

    def in_flight(self) -> list[Progress]:
        """Return the progress of the requests that model instances serve now."""
        return [found for each in self._exchanges if (found := progress_of(each)) is not None]

    def reroute(self, endpoint: str, instance: ModelInstance | None, failure: Failure) -> None:
        """Reroute requests from a failed endpoint or model instance, see `rerouting.reroute`."""
        for exchange in list(self._exchanges):
            reroute(exchange, endpoint, instance, failure)

    # --- exchanges --------------------------------------------------------------------------

    def _begin_hot(self, connection: Connection, request: HotRequest) -> None:
        """Start the exchange of a hot request, whose body may be incomplete."""
        head = request.head
        incoming = FastRequest(head, connection.peer, request.length)
        record = self._record(incoming, request.started)
        exchange = self._open(incoming, connection, head.target, record)
        authenticator = self._services.authenticator
        if request.missing or request.length >= STEP:
            request.exchange = exchange
        try:
            self._admit(connection)
            quota = authorize(authenticator, incoming, head.target, self._config.via)
        except UnknownKey as unknown:
            if authenticator.renew is None:
                reject(authenticator, exchange, incoming, head.target, unknown.failure)
            else:
                if request.exchange is not None:
                    self._hold(request, authenticator.anonymous(incoming).account)
                late = self._begin_after_lookup(exchange, incoming, request)
                exchange.task = spawn(late, exchange.crashed)
        except Failed as failed:
            reject(authenticator, exchange, incoming, head.target, failed.failure)
        except Exception as error:
            exchange.crashed(error)
        else:
            exchange.enter(quota)
            if request.exchange is None:
                exchange.begin(request.body())
            else:
                self._hold(request, quota.caller.account)
                self._reserve(request, quota)

    async def _begin_after_lookup(
        self, exchange: Exchange, incoming: FastRequest, request: HotRequest
    ) -> None:
        """Start the exchange after the key was looked up in the store."""
        try:
            quota = await self.internal_routes.authorize(incoming, request.head.target)
        except Failed as failed:
            reject(
                self._services.authenticator,
                exchange,
                incoming,
                request.head.target,
                failed.failure,
            )
        else:
            exchange.enter(quota)
            if request.exchange is None:
                exchange.begin(request.body())
            else:
                self._reserve(request, quota)

    def _hold(self, request: HotRequest, account: str) -> None:
        """Count the arriving body against the body budget, for the caller with this account."""
        exchange = request.exchange
        assert exchange is not None
        request.charge = BodyCharge(self._services.body_budget, account)
        exchange.hold(request.charge)

    def _reserve(self, request: HotRequest, quota: Quota) -> None:
        """Reserve the caller's quota before more of the body is read."""
        if request.missing:
            quota.reserve(request.length, partial(self._reserved, request))
        else:
            self._reserved(request, None)

    def _reserved(self, request: HotRequest, refused: Failure | None) -> None:
        exchange = request.exchange
        assert exchange is not None
        if exchange.finished:
            return  # the client has disconnected
        if refused is not None:
            exchange.refuse(refused)
        else:
            request.reserved = True
            self._more_hot(request)

    def _more_hot(self, request: HotRequest) -> None:
        """Continue a hot request after more of its body has arrived or its quota was reserved."""
        exchange, charge = request.exchange, request.charge
        assert exchange is not None
        if charge is None or exchange.finished:
            request.pieces.clear()  # it is being rejected, and its body is not counted
            return
        failure = charge.hold(request.length - request.missing)
        if failure is not None:
            exchange.stop(failure)
        elif request.reserved and not request.missing:
            exchange.begin(request.body())

    def _admit(self, connection: Connection) -> None:
        """Raise Failed if the router is draining or the connection exceeds the limit."""
        if self.draining:
            raise Failed(_draining())
        if connection.surplus:
            connection.persistent = False
            raise Failed(overloaded("too many connections", "server.max_connections"))

    def _record(self, incoming: IncomingRequest, started: float) -> RequestRecord:
        clock = self._services.clock
        return RequestRecord(
            id=request_id(incoming, self._services.ids),
            method=incoming.method,
            path=incoming.path,
            client=incoming.peer,
            started=started,
            started_wall=clock.wall(),
        )

    def _open(
        self,
        incoming: IncomingRequest,
        connection: Connection,
        target: Target,
        record: RequestRecord,
    ) -> Exchange:
        exchange = Exchange(
            self._services,
            self._upstreams,
            self._config,
            incoming,
            connection,
            target,
            record,
            self,
        )
        self._exchanges.add(exchange)
        self._answering += 1
        connection.persistent = connection.persistent and not self.draining
        connection.carries(exchange)
        return exchange

    def over(self, exchange: Exchange) -> None:
        """See `ExchangeOwner.over`."""
        self._exchanges.discard(exchange)
        record, services = exchange.record, self._services
        record.ended = services.clock.now()
        exchange.downstream.answered()
        services.sink(record)
        self._done()

    async def read(self, incoming: IncomingRequest, quota: Quota, limit: int) -> bytes:
        """See `SubrequestSender.read`.

        Raises:
            Failed: see `read_body`.
        """
        services, config = self._services, self._config
        body_max = min(limit, config.max_body)
        charge = BodyCharge(services.body_budget, quota.caller.account)
        try:
            return await read_body(incoming, body_max, charge, quota.ensure_reserved)
        except Failed as failed:
            if limit < config.max_body and failed.failure == too_large(limit):
                message = f"the request body is over this path's limit of {limit} bytes"
                raise Failed(Failure(Kind.BODY_TOO_LARGE, message)) from None
            raise
        finally:
            charge.release()

    async def run(self, steps: Generator[None, None, T]) -> T:
        """See `SubrequestSender.run`."""
        return await self._services.time_slices.run(steps)

    def forward(
        self,
        method: str,
        path: str,
        body: bytes,
        quota: Quota,
        record: RequestRecord,
        peer: str,
        carrier: ClientConnection,
    ) -> SubrequestResponse:
        """See `SubrequestSender.forward`.

        Raises:
            Failed: the path is not served, the body budget is used up, or the router is draining.
        """
        if self.draining:
            raise Failed(_draining())
        target = self._paths.resolve(method, path)
        charge = BodyCharge(self._services.body_budget, quota.caller.account)
        failure = charge.hold(len(body))
        if failure is not None:
            raise Failed(failure)
        incoming = SubrequestIncoming(method, path, body, peer)
        answer = SubrequestResponse(record)
        exchange = Exchange(
            self._services,
            self._upstreams,
            self._config,
            incoming,
            answer,
            target,
            record,
            SubrequestHost(self._exchanges, self),
        )
        self._exchanges.add(exchange)
        answer.close, answer.stop = exchange.abandon, exchange.stop
        carrier.carries(exchange)
        exchange.hold(charge)
        exchange.enter(quota)
        exchange.begin(body)
        return answer

    def crashed(self, record: RequestRecord, error: Exception) -> None:
        """See `ExchangeOwner.crashed`."""
        self._logger.error("request failed", id=record.id, path=record.path, exc_info=error)

    def _done(self) -> None:
        self._answering -= 1
        if not self._answering and self._all_answered is not None:
            self._all_answered.set()

    # --- requests that aiohttp has parsed ---------------------------------------------------

    def _handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        if request.version not in _VERSIONS:
            raise BadHttpMessage(f"HTTP/{request.version.major}.{request.version.minor}")
        connection = cast(Connection, request.protocol)
        incoming = AiohttpRequest(request, connection.peer, self.server.timeouts)
        route = self.internal_routes.find(incoming.path)
        refusal = self._check_browser(incoming)
        fault = cast(Request, request).fault
        if fault:
            refusal = Failure(Kind.BAD_REQUEST, f"this request cannot be served: {fault}")
        if refusal is not None:
            return self._reject_early(refusal, route, request, incoming)
        if incoming.is_preflight:
            return self._respond(self._preflight(incoming), request, incoming)
        if route is None:
            return self._answer(request, incoming)
        record = self._record(incoming, self._services.clock.now())
        answering = self.internal_routes.answer_internal(
            route, request, incoming, record, connection.gone
        )
        return self._respond(answering, request, incoming)

    async def _respond(
        self,
        answering: Awaitable[web.StreamResponse],
        request: web.BaseRequest,
        incoming: AiohttpRequest,
    ) -> web.StreamResponse:
        """Await a surface's response and add the CORS fields."""
        self._answering += 1
        try:
            response = await answering
        except web.HTTPException as error:
            add_fields(error, incoming.cors)
            raise
        finally:
            self._done()
        if not response.prepared:
            add_fields(response, incoming.cors)
        return await self._finish_response(cast(Request, request), response)

    async def _finish_response(
        self, request: Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        """Return the result of a handler whose response aiohttp writes.

        A response that broke off after its head is ended with a reset, so that the client cannot
        take it for a complete one.
        """
        connection = cast(Connection, request.protocol)
        if request.begun and (response is WRITTEN_CLOSE or not response.prepared):
            # An error response would put a second head into the body of the first response.
            reset = connection.until_answered()
            connection.answered()
            await reset
            return WRITTEN_CLOSE
        connection.complete()
        connection.answered()
        return response

    async def _answer(
        self, request: web.BaseRequest, incoming: AiohttpRequest
    ) -> web.StreamResponse:
        record = self._record(incoming, self._services.clock.now())
        connection = self._prepare(request, incoming)
        try:
            target = self._paths.resolve(request.method, request.raw_path)
        except Failed as failed:
            dialect = self._paths.error_dialect(request.raw_path)
            self._write_failure(failed, dialect, incoming, connection, record)
            return written(connection.persistent)
        answer = self.internal_routes.operation(target.operation)
        if answer is not None:
            answering = self.internal_routes.answer_operation(
                answer, request, incoming, target, record, connection.gone
            )
            return await self._respond(answering, request, incoming)
        exchange = self._open(incoming, connection, target, record)
        answered = connection.until_answered()
        try:
            try:
                self._admit(connection)
                quota = await self.internal_routes.authorize(incoming, target)
                exchange.enter(quota)
                body = b""
                if target.body is not BodyUse.STREAMED and incoming.has_body:
                    services, config = self._services, self._config
                    charge = BodyCharge(services.body_budget, quota.caller.account)
                    exchange.hold(charge)
                    body = await read_body(incoming, config.max_body, charge, quota.ensure_reserved)
            except Failed as failed:
                reject(self._services.authenticator, exchange, incoming, target, failed.failure)
            except Exception as error:
                exchange.crashed(error)
            else:
                exchange.begin(body)
                del body  # the exchange drops it when no further attempt needs it
            await answered
        except asyncio.CancelledError:
            exchange.abandon(connection.gone())
            raise
        return written(connection.persistent)

    def _prepare(self, request: web.BaseRequest, incoming: AiohttpRequest) -> Connection:
        """Return the request's connection, set up for the client's HTTP version and options."""
        connection = cast(Connection, request.protocol)
        connection.persistent = request.keep_alive and not self.draining
        connection.minor = 1 if request.version >= (1, 1) else 0
        connection.wants_trailers = "trailers" in (
            "" if incoming.plain else incoming.header("TE") or ""
        )
        return connection

    def _write_failure(
        self,
        failed: Failed,
        dialect: Dialect,
        incoming: AiohttpRequest,
        client: Connection,
        record: RequestRecord,
    ) -> None:
        """Answer a request that failed before its exchange was made."""
        failure, services = failed.failure, self._services
        record.failure = failure
        record.status = failure.status
        record.dialect = dialect.name
        if incoming.has_body:
            client.persistent = False
        fields = f"X-Olla-Request-ID: {record.id}\r\nX-Olla-Routing-Decision: rejected\r\n"
        if isinstance(failed, WrongMethod):
            fields += f"Allow: {', '.join(failed.allowed)}\r\n"
        client.write(
            error_answer(
                failure,
                dialect,
                services.date_header.field(record.started) + fields.encode() + incoming.cors,
                keep_alive=client.persistent,
                minor=client.minor,
                bodiless=incoming.method == "HEAD",
            )
        )
        record.ended = services.clock.now()
        services.sink(record)

    # --- browsers ---------------------------------------------------------------------------

    def _check_browser(self, incoming: AiohttpRequest) -> Failure | None:
        """Check Origin and Host; return the rejection, or None. Sets the CORS response fields."""
        guard, method = self._config.guard, incoming.method
        origins, hosts = incoming.origins, incoming.hosts
        forwarded = incoming.forwarded_hosts
        incoming.cors, refusal = guard.check(method, origins, hosts, forwarded, from_proxy=False)
        if refusal is not None and self._is_proxy(incoming.peer):
            incoming.cors, refusal = guard.check(method, origins, hosts, forwarded, from_proxy=True)
        return refusal

    def _is_proxy(self, peer: str) -> bool:
        """Tell whether an address belongs to a trusted proxy."""
        return is_in(peer, self._services.authenticator.policy.trusted)

    async def _reject_early(
        self,
        refusal: Failure,
        route: InternalRoute | None,
        request: web.BaseRequest,
        incoming: AiohttpRequest,
    ) -> web.StreamResponse:
        """Reject a request because of its Host, target or origin.

        It is not charged: a web page sent it, and the user at the charged address did not.
        """
        record = self._record(incoming, self._services.clock.now())
        connection = self._prepare(request, incoming)
        dialect = self._paths.error_dialect(incoming.target) if route is None else route.dialect
        self._write_failure(Failed(refusal), dialect, incoming, connection, record)
        return written(connection.persistent)

    async def _preflight(self, incoming: AiohttpRequest) -> web.StreamResponse:
        """Answer a CORS preflight.

        It needs no key, which browsers do not send here, and is charged to the client's address.
        """
        services, config = self._services, self._config
        authenticator = services.authenticator
        record = self._record(incoming, services.clock.now())
        dialect = self._paths.error_dialect(incoming.target)
        record.dialect, record.operation = dialect.name, "preflight"
        quota = authenticator.quota(
            authenticator.anonymous(incoming), "monitoring", incoming, _PREFLIGHTS
        )
        quota.annotate(record)
        response: web.StreamResponse
        try:
            await quota.ensure_charged()
        except Failed as failed:
            record.failure = failed.failure
            response = error_response(failed.failure, dialect)
        else:
            asked = incoming.listed("Access-Control-Request-Headers")
            fields = config.guard.cors.preflight(incoming.origins[0], asked)
            incoming.cors = fields or incoming.cors
            response = web.Response(status=204)
        finally:
            quota.settle(record)
        response.headers.update(quota.headers())
        response.headers["X-Olla-Request-ID"] = record.id
        record.status = response.status
        record.ended = services.clock.now()
        services.sink(record)
        return response

    def _parser_rejection(
        self, start: bytes, peer: str, status: int, message: str, error: BaseException | None
    ) -> bytes:
        """Make the response to bytes that aiohttp's parser rejected."""
        match = _REQUEST_LINE.match(start)
        path = match[1].decode("latin-1") if match is not None else "/"
        if status == 431 or isinstance(error, LineTooLong):
            failure = Failure(
                Kind.HEADERS_TOO_LARGE,
                f"the request's head is over the limit of {self.server.head_max} bytes "
                "(server.request_limits.max_header_size)",
            )
        elif status == 408:
            failure = Failure(
                Kind.REQUEST_TIMEOUT,
                f"{message} (server.read_header_timeout); send the request again",
            )
        elif error is not None and not isinstance(error, HttpProcessingError):
            self._logger.error("request failed", path=path, exc_info=error)
            failure = Failure(Kind.INTERNAL, "the router failed at this request; its log has more")
        elif start.startswith(b"PRI * HTTP/2"):
            failure = Failure(Kind.BAD_REQUEST, "HTTP/2 is not supported; use HTTP/1.1")
        else:
            what = masked(message)  # it quotes the request, whose query may have a secret
            failure = Failure(Kind.BAD_REQUEST, f"this is not an HTTP/1.1 request: {what}")
        services, config = self._services, self._config
        now = services.clock.now()
        dialect = self._paths.error_dialect(path)
        origin = _origin(start)
        cors = b"" if origin is None else config.guard.cors.answer(origin)
        record = RequestRecord(
            id=next(services.ids),
            method=start.partition(b" ")[0].decode("latin-1") if match is not None else "",
            path=path.partition("?")[0],
            client=peer,
            started=now,
            started_wall=services.clock.wall(),
            dialect=dialect.name,
            status=failure.status,
            ended=now,
            failure=failure,
        )
        answer = error_answer(
            failure,
            dialect,
            services.date_header.field(now) + f"X-Olla-Request-ID: {record.id}\r\n".encode() + cors,
            keep_alive=False,
            minor=1,
            bodiless=False,
        )
        record.bytes_out = len(answer)
        services.sink(record)
        return answer


def _origin(start: bytes) -> str | None:
    """Return the origin in an unparsable, perhaps incomplete head; None if it is missing or
    repeated."""
    head = start[:_HEAD_READ].partition(b"\r\n\r\n")[0] + b"\r\n"
    found: list[bytes] = _ORIGIN.findall(head)
    return found[0].decode() if len(found) == 1 else None


def _draining() -> Failure:
    return Failure(Kind.DRAINING, "the router is shutting down; try again", retry_after=1.0)


def reject(
    authenticator: Authenticator,
    exchange: Exchange,
    incoming: IncomingRequest,
    target: Target,
    failure: Failure,
) -> None:
    """Reject a request whose exchange has not begun; charge unauthorized ones to their caller."""
    if failure.status not in UNAUTHORIZED or exchange.quota is not None:
        exchange.refuse(failure)
        return

    def paid(refused: Failure | None) -> None:
        if not exchange.finished:
            exchange.refuse(refused or failure)

    quota = authenticator.quota_of_rejected(incoming, CATEGORIES[target.operation])
    exchange.enter(quota)
    quota.charge(None, paid)
