"""Authorize, charge and answer the requests that are not forwarded to an endpoint.

These are operations for the whole fleet (lists, versions) and internal routes (status, keys, the
gateway APIs). The surfaces make the responses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Final, Protocol, TypeVar, cast

import structlog
from aiohttp import web
from aiohttp.web_exceptions import HTTPException

from olla.access.caller import Caller, refuse
from olla.access.keyring import UnknownKey
from olla.access.policy import Category
from olla.dialects.dialect import Dialect, Operation, Right
from olla.dialects.paths import Target
from olla.dialects.registry import DIALECTS
from olla.failures import Failed, Failure, Kind
from olla.proxy.auth.authenticate import Quota, SurfaceQuota
from olla.proxy.auth.authorize import CATEGORIES, UNAUTHORIZED, authorize
from olla.proxy.exchange.context import RequestConfig, Services
from olla.proxy.exchange.exchange import ClientConnection
from olla.proxy.http.error_response import add_fields, error_response
from olla.proxy.http.headers import seconds
from olla.proxy.http.request import IncomingRequest
from olla.proxy.internal.subrequest import SubrequestResponse
from olla.record import RequestRecord

__all__ = [
    "InternalRequest",
    "InternalRoute",
    "InternalRoutes",
    "OperationSurface",
    "Permission",
    "Surface",
]


T = TypeVar("T")


class SubrequestSender(Protocol):
    """Reads request bodies and sends subrequests for surfaces."""

    async def read(self, incoming: IncomingRequest, quota: Quota, limit: int) -> bytes:
        """Return the whole body of a request, of `limit` bytes at most."""
        ...

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run work in many short steps and return its result, see `TimeSlices`."""
        ...

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
        """Start a subrequest and return its response, see `SubrequestResponse`."""
        ...


class InternalRequest:
    """A request to an internal route, with its quota and record."""

    __slots__ = ("_carrier", "_sender", "incoming", "quota", "record")

    def __init__(
        self,
        incoming: IncomingRequest,
        quota: Quota,
        record: RequestRecord,
        sender: SubrequestSender,
        carrier: ClientConnection,
    ) -> None:
        self.incoming = incoming
        self.quota = quota
        self.record = record
        self._sender = sender
        self._carrier = carrier

    async def stream(
        self, request: web.BaseRequest, answer: SubrequestResponse, content_type: str
    ) -> web.StreamResponse:
        """Send the head of a streamed response, with the router's headers from `answer`.

        Raises:
            ConnectionError: the client has disconnected.
        """
        response = web.StreamResponse(
            headers={
                "Content-Type": content_type,
                "Cache-Control": "no-store",
                **dict(answer.router_headers()),
            }
        )
        add_fields(response, self.incoming.cors)
        await response.prepare(request)
        return response

    async def body(self, limit: int) -> bytes:
        """Read and return the whole body, of `limit` bytes at most.

        Call it once, and parse the body at once: its share of the body budget is released here.

        Raises:
            Failed: the body is too long or incomplete, the body budget is used up, or a limit is
                reached.
        """
        return await self._sender.read(self.incoming, self.quota, limit)

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run work in many short steps and return its result, see `TimeSlices`."""
        return await self._sender.run(steps)

    def forward(self, path: str, body: bytes) -> SubrequestResponse:
        """POST to a proxied path (such as `/api/chat`) as if the client had sent the request.

        The caller's rights and limits apply, and the request is recorded once.

        Raises:
            Failed: the path is not served, the body budget is used up, or the router is draining.
        """
        quota, record, peer = self.quota, self.record, self.incoming.peer
        return self._sender.forward("POST", path, body, quota, record, peer, self._carrier)


Surface = Callable[[web.BaseRequest, InternalRequest], Awaitable[web.StreamResponse]]
"""Answers a request to an internal route."""
OperationSurface = Callable[[web.BaseRequest, Target, Caller], Awaitable[web.Response]]
"""Answers an operation of a dialect for the part of the fleet that the caller may see."""

Permission = Callable[[Caller], Failure | None]
"""Returns the rejection of a caller, or None to accept it."""


class InternalRoute:
    """A path that olla answers itself.

    `right` is the right that a caller needs, or a `Permission` if the decision depends on more than
    one right. None opens the path to all callers, without limits, even if keys are required. It has
    no default, so that a path is never open by omission. Requests are limited in `category` and
    with `surface_quota`. `forwards` marks routes that send a subrequest, which is charged instead.
    `strict` rejects unknown keys even if keys are not in use. `recorded` routes appear in the log,
    metrics and usage like requests to the fleet.
    """

    __slots__ = (
        *("answer", "forwards", "category", "dialect", "operation", "recorded", "right"),
        *("strict", "surface_quota"),
    )

    def __init__(
        self,
        answer: Surface,
        *,
        right: Right | Permission | None,
        category: Category = "monitoring",
        forwards: bool = False,
        surface_quota: SurfaceQuota | None = None,
        dialect: str = "olla",
        operation: str = "",
        strict: bool = False,
        recorded: bool = False,
    ) -> None:
        self.answer = answer
        self.right = right
        self.category = category
        self.forwards = forwards
        self.surface_quota = surface_quota or SurfaceQuota()
        self.dialect: Dialect = DIALECTS[dialect]
        self.operation = operation
        self.strict = strict
        self.recorded = recorded


def _any_caller(caller: Caller) -> Failure | None:
    """Accept every caller that can be identified."""
    return None


async def _server_options(request: web.BaseRequest, context: InternalRequest) -> web.StreamResponse:
    """Answer `OPTIONS *` with the methods of the whole server (RFC 9110, 9.3.7)."""
    return web.Response(
        status=204, headers={"Allow": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"}
    )


_SERVER: Final = InternalRoute(
    _server_options, right=_any_caller, surface_quota=SurfaceQuota("internal", None)
)
"""The route of the target `*`, which only OPTIONS may use."""


class InternalRoutes:
    """Finds and runs internal routes and fleet-wide operations."""

    def __init__(
        self,
        services: Services,
        config: RequestConfig,
        *,
        paths: Mapping[str, InternalRoute],
        operations: Mapping[Operation, OperationSurface],
        sender: SubrequestSender,
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`paths` maps exact paths, or a prefix ending in `/*` for one more segment."""
        self.services = services
        self.config = config
        self.paths = paths
        self._operations = operations
        self._sender = sender
        self._logger = logger

    def find(self, path: str) -> InternalRoute | None:
        """Return the route of a path, or None if it is not internal."""
        route = _SERVER if path == "*" else self.paths.get(path)
        if route is None:
            parent, slash, last = path.rpartition("/")
            route = self.paths.get(f"{parent}/*") if slash and last else None
        return route

    def is_internal(self, path: str) -> bool:
        """Tell whether olla answers this path itself."""
        return self.find(path) is not None

    def operation(self, operation: Operation) -> OperationSurface | None:
        """Return the surface that answers an operation for the whole fleet, or None."""
        return self._operations.get(operation)

    async def authorize(self, incoming: IncomingRequest, target: Target) -> Quota:
        """Authorize a request to the fleet, looking up an unknown key in the store.

        Raises:
            Failed: the request is rejected (see `auth.authorize`), or the store is unavailable.
        """
        authenticator, via = self.services.authenticator, self.config.via
        return await self._with_key_refresh(lambda: authorize(authenticator, incoming, target, via))

    async def _with_key_refresh(self, find: Callable[[], T]) -> T:
        """Call `find`; if it does not know a key, refresh the keys from the store and repeat."""
        try:
            return find()
        except UnknownKey:
            if self.services.authenticator.renew is None:
                raise
        await self.services.authenticator.renew()
        return find()

    async def answer_internal(
        self,
        route: InternalRoute,
        request: web.BaseRequest,
        incoming: IncomingRequest,
        record: RequestRecord,
        gone: Callable[[], Failure],
    ) -> web.StreamResponse:
        """Answer a request to an internal route. `gone` returns the failure that describes a client
        disconnect; it is used if the task is cancelled."""
        record.dialect = route.dialect.name
        record.operation = route.operation
        right = route.right
        sender, carrier = self._sender, cast(ClientConnection, request.protocol)
        if right is None:
            authenticator = self.services.authenticator
            unlimited = Quota(authenticator, authenticator.anonymous(incoming), None, False)
            return await route.answer(
                request, InternalRequest(incoming, unlimited, record, sender, carrier)
            )
        quota: Quota | None = None

        async def respond() -> web.StreamResponse:
            nonlocal quota
            authorizing = self._authorize_internal(route, right, incoming)
            quota, refused = await self._quota_and_rejection(
                authorizing, incoming, route.category, route.surface_quota
            )
            quota.annotate(record)
            if refused is not None or not route.forwards:
                await quota.ensure_charged()
            if refused is not None:
                raise refused
            try:
                response = await route.answer(
                    request, InternalRequest(incoming, quota, record, sender, carrier)
                )
            except Failed:
                await quota.ensure_charged()  # errors before the subrequest are charged, too
                raise
            if not response.prepared:
                await quota.ensure_charged()
            return response

        try:
            response = await self._respond(respond, route.dialect, record, gone)
            if quota is not None and not response.prepared:
                response.headers.update(quota.headers())
        finally:
            if quota is not None:
                quota.settle(record)
            if route.recorded:
                self._finish(record)
        return response

    async def answer_operation(
        self,
        answer: OperationSurface,
        request: web.BaseRequest,
        incoming: IncomingRequest,
        target: Target,
        record: RequestRecord,
        gone: Callable[[], Failure],
    ) -> web.StreamResponse:
        """Answer an operation for the whole fleet. `gone`: see `answer_internal`."""
        record.dialect = target.dialect.name
        record.operation = target.word
        record.strategy = self.config.strategy
        quota: Quota | None = None

        async def respond() -> web.StreamResponse:
            nonlocal quota
            authorizing = self.authorize(incoming, target)
            category = CATEGORIES[target.operation]
            quota, refused = await self._quota_and_rejection(
                authorizing, incoming, category, SurfaceQuota()
            )
            quota.annotate(record)
            await quota.ensure_charged()
            if refused is not None:
                raise refused
            return await answer(request, target, quota.caller)

        try:
            response = await self._respond(respond, target.dialect, record, gone)
            if quota is not None:
                response.headers.update(quota.headers())
        finally:
            if quota is not None:
                quota.settle(record)
            self._finish(record)
        return response

    async def _quota_and_rejection(
        self,
        authorizing: Awaitable[Quota],
        incoming: IncomingRequest,
        category: Category,
        surface_quota: SurfaceQuota,
    ) -> tuple[Quota, Failed | None]:
        """Return the quota, and the rejection of an unauthorized caller, which is charged, too."""
        try:
            return await authorizing, None
        except Failed as failed:
            if failed.failure.status not in UNAUTHORIZED:
                raise
            return self.services.authenticator.quota_of_rejected(
                incoming, category, surface_quota
            ), failed

    async def _authorize_internal(
        self, route: InternalRoute, right: Right | Permission, incoming: IncomingRequest
    ) -> Quota:
        """Authenticate and authorize a request to an internal route, and return its quota.

        Raises:
            Failed: the key is rejected or lacks the right, or the store is unavailable.
        """
        authenticator = self.services.authenticator
        caller = await self._with_key_refresh(
            lambda: authenticator.identify(incoming, strict=route.strict)
        )
        if isinstance(right, Right):
            refusal = refuse(caller, right, route.operation or incoming.path)
        else:
            refusal = right(caller)
        if refusal is not None:
            raise Failed(refusal)
        return authenticator.quota(caller, route.category, incoming, route.surface_quota)

    async def _respond(
        self,
        respond: Callable[[], Awaitable[web.StreamResponse]],
        dialect: Dialect,
        record: RequestRecord,
        gone: Callable[[], Failure],
    ) -> web.StreamResponse:
        """Run `respond`, turn failures into error responses and add the router's headers."""
        response: web.StreamResponse
        try:
            response = await respond()
        except Failed as failed:
            record.failure = failed.failure
            response = error_response(failed.failure, dialect)
        except asyncio.CancelledError:
            record.failure = gone()
            record.status = record.failure.status
            raise
        except HTTPException:
            raise
        except Exception as error:
            self._logger.error("request failed", id=record.id, path=record.path, exc_info=error)
            message = "the router failed at this request; its log has more"
            record.failure = Failure(Kind.INTERNAL, message)
            response = error_response(record.failure, dialect)
        if response.prepared:  # a stream, whose head already has these headers
            return response
        now = self.services.clock.now()
        record.status = response.status
        if record.failure is None:
            record.first_byte = record.first_byte or now
        response.headers["X-Olla-Request-ID"] = record.id
        response.headers["X-Olla-Response-Time"] = seconds(now - record.started)
        if isinstance(response, web.Response):
            body = response.body
            record.bytes_out = len(body) if isinstance(body, bytes) else getattr(body, "size", 0)
        return response

    def _finish(self, record: RequestRecord) -> None:
        record.ended = self.services.clock.now()
        self.services.sink(record)
