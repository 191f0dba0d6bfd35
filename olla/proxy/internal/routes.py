"""Authorizes, charges and answers the requests that no endpoint gets.

These are operations answered for the whole fleet (lists, versions) and olla's own paths (status,
keys, the gateways' surfaces). The answers themselves come from the surfaces.
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
    """Sends a request of a surface's own making into the fleet."""

    async def read(self, incoming: IncomingRequest, quota: Quota, most: int) -> bytes:
        """The whole body of a request, of `most` bytes at most."""
        ...

    async def run(self, steps: Generator[None, None, T]) -> T:
        """What work in many short steps comes to, see `TimeSlices`."""
        ...

    def ask(
        self,
        method: str,
        path: str,
        body: bytes,
        quota: Quota,
        record: RequestRecord,
        peer: str,
        carrier: ClientConnection,
    ) -> SubrequestResponse:
        """The answer, which is on its way; see `SubrequestResponse`."""
        ...


class InternalRequest:
    """A request to one of olla's own paths, and what is known of it."""

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
        """Begin a stream that passes on what the fleet answers: its head is sent here.

        Raises:
            ConnectionError: the client has gone.
        """
        response = web.StreamResponse(
            headers={
                "Content-Type": content_type,
                "Cache-Control": "no-store",
                **dict(answer.told()),
            }
        )
        add_fields(response, self.incoming.cors)
        await response.prepare(request)
        return response

    async def body(self, most: int) -> bytes:
        """The whole body, of `most` bytes at most: to be read once, and at once made into what is
        asked.

        Raises:
            Failed: it is too long, breaks off, or there is no room for it, or a limit is reached.
        """
        return await self._sender.read(self.incoming, self.quota, most)

    async def run(self, steps: Generator[None, None, T]) -> T:
        """What work in many short steps comes to, see `TimeSlices`."""
        return await self._sender.run(steps)

    def ask(self, path: str, body: bytes) -> SubrequestResponse:
        """Have the fleet answer a POST to one of the proxied paths (such as `/api/chat`), as if
        the client had sent it: the caller's rights and limits hold, and it is recorded once.

        Raises:
            Failed: no such path is served, or nothing is taken in any more.
        """
        quota, record, peer = self.quota, self.record, self.incoming.peer
        return self._sender.ask("POST", path, body, quota, record, peer, self._carrier)


Surface = Callable[[web.BaseRequest, InternalRequest], Awaitable[web.StreamResponse]]
"""Answers one of olla's own paths."""
OperationSurface = Callable[[web.BaseRequest, Target, Caller], Awaitable[web.Response]]
"""Answers an operation of a dialect for the whole fleet, as far as the caller may see it."""


Permission = Callable[[Caller], Failure | None]
"""Refuses callers, or accepts one with None."""


class InternalRoute:
    """One of olla's own paths.

    `right` is what a caller needs for it: a right, or a `Permission` where that depends on more
    than one. With None the path is open to everybody, also where keys are required, and is not
    limited; that has to be said, so that a path is never open by omission. `category` is the one it
    is limited in, `own` what its surface brings. `asks` says that the fleet is asked, and that
    request is the one that counts; `strict` that unknown keys are refused even where keys are not
    in use; `recorded` that it is a request like those to the fleet: in the log, metrics and usage.
    """

    __slots__ = (
        *("answer", "asks", "category", "dialect", "operation", "own", "recorded", "right"),
        "strict",
    )

    def __init__(
        self,
        answer: Surface,
        *,
        right: Right | Permission | None,
        category: Category = "monitoring",
        asks: bool = False,
        own: SurfaceQuota | None = None,
        dialect: str = "olla",
        operation: str = "",
        strict: bool = False,
        recorded: bool = False,
    ) -> None:
        self.answer = answer
        self.right = right
        self.category = category
        self.asks = asks
        self.own = own or SurfaceQuota()
        self.dialect: Dialect = DIALECTS[dialect]
        self.operation = operation
        self.strict = strict
        self.recorded = recorded


def _any_caller(caller: Caller) -> Failure | None:
    """Accept every caller: with a key where keys are required."""
    return None


async def _server_options(request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
    """Answer `OPTIONS *`, which asks what the server as a whole can do (RFC 9110, 9.3.7)."""
    return web.Response(
        status=204, headers={"Allow": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"}
    )


_SERVER: Final = InternalRoute(
    _server_options, right=_any_caller, own=SurfaceQuota("internal", None)
)
"""What `*` stands for as a target; no method but OPTIONS may have it."""


class InternalRoutes:
    """Answers what needs no endpoint, or asks them itself."""

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
        """`paths` by exact path, or with `/*` at the end for one more part."""
        self.services = services
        self.config = config
        self.paths = paths
        self._operations = operations
        self._sender = sender
        self._logger = logger

    def own(self, path: str) -> InternalRoute | None:
        """Which of olla's own paths this is, if any."""
        found = _SERVER if path == "*" else self.paths.get(path)
        if found is None:
            above, slash, last = path.rpartition("/")
            found = self.paths.get(f"{above}/*") if slash and last else None
        return found

    def is_own(self, path: str) -> bool:
        """Whether this is one of olla's own paths."""
        return self.own(path) is not None

    def operation(self, operation: Operation) -> OperationSurface | None:
        """Who answers an operation for the whole fleet, if anybody does."""
        return self._operations.get(operation)

    async def authorize(self, incoming: IncomingRequest, target: Target) -> Quota:
        """See `allowing.authorize`; a key that is not known here is looked for in the store.

        Raises:
            Failed: it is not let in, or the store is away.
        """
        authenticator, via = self.services.authenticator, self.config.via
        return await self._known(lambda: authorize(authenticator, incoming, target, via))

    async def _known(self, find: Callable[[], T]) -> T:
        """What `find` finds; where it does not know a key, once more after the store was asked."""
        try:
            return find()
        except UnknownKey:
            if self.services.authenticator.renew is None:
                raise
        await self.services.authenticator.renew()
        return find()

    async def answer_own(
        self,
        own: InternalRoute,
        request: web.BaseRequest,
        incoming: IncomingRequest,
        record: RequestRecord,
        gone: Callable[[], Failure],
    ) -> web.StreamResponse:
        """Answer one of olla's own paths. `gone` says why the client is there no longer, where
        that has ended it."""
        record.dialect = own.dialect.name
        record.operation = own.operation
        right = own.right
        sender, carrier = self._sender, cast(ClientConnection, request.protocol)
        if right is None:
            authenticator = self.services.authenticator
            unlimited = Quota(authenticator, authenticator.anonymous(incoming), None, False)
            return await own.answer(
                request, InternalRequest(incoming, unlimited, record, sender, carrier)
            )
        quota: Quota | None = None

        async def answered() -> web.StreamResponse:
            nonlocal quota
            entering = self._enter(own, right, incoming)
            quota, refused = await self._served(entering, incoming, own.category, own.own)
            quota.note(record)
            if refused is not None or not own.asks:
                await quota.paid()
            if refused is not None:
                raise refused
            try:
                response = await own.answer(
                    request, InternalRequest(incoming, quota, record, sender, carrier)
                )
            except Failed:
                await quota.paid()  # what is wrong before the fleet is asked counts as well
                raise
            if not response.prepared:
                await quota.paid()
            return response

        try:
            response = await self._guarded(answered, own.dialect, record, gone)
            if quota is not None and not response.prepared:
                response.headers.update(quota.headers())
        finally:
            if quota is not None:
                quota.settle(record)
            if own.recorded:
                self._over(record)
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
        """Answer an operation for the whole fleet. `gone`: see `answer_own`."""
        record.dialect = target.dialect.name
        record.operation = target.word
        record.strategy = self.config.strategy
        quota: Quota | None = None

        async def answered() -> web.StreamResponse:
            nonlocal quota
            entering = self.authorize(incoming, target)
            category = CATEGORIES[target.operation]
            quota, refused = await self._served(entering, incoming, category, SurfaceQuota())
            quota.note(record)
            await quota.paid()
            if refused is not None:
                raise refused
            return await answer(request, target, quota.caller)

        try:
            response = await self._guarded(answered, target.dialect, record, gone)
            if quota is not None:
                response.headers.update(quota.headers())
        finally:
            if quota is not None:
                quota.settle(record)
            self._over(record)
        return response

    async def _served(
        self,
        entering: Awaitable[Quota],
        incoming: IncomingRequest,
        category: Category,
        own: SurfaceQuota,
    ) -> tuple[Quota, Failed | None]:
        """The visit, and the refusal of a caller without the right: its request counts, too."""
        try:
            return await entering, None
        except Failed as failed:
            if failed.failure.status not in UNAUTHORIZED:
                raise
            return self.services.authenticator.quota_of_rejected(incoming, category, own), failed

    async def _enter(
        self, own: InternalRoute, right: Right | Permission, incoming: IncomingRequest
    ) -> Quota:
        """The visit of a request to one of olla's own paths.

        Raises:
            Failed: its key is not accepted, or has no right to it.
        """
        authenticator = self.services.authenticator
        caller = await self._known(lambda: authenticator.identify(incoming, strict=own.strict))
        if isinstance(right, Right):
            refusal = refuse(caller, right, own.operation or incoming.path)
        else:
            refusal = right(caller)
        if refusal is not None:
            raise Failed(refusal)
        return authenticator.quota(caller, own.category, incoming, own.own)

    async def _guarded(
        self,
        answered: Callable[[], Awaitable[web.StreamResponse]],
        dialect: Dialect,
        record: RequestRecord,
        gone: Callable[[], Failure],
    ) -> web.StreamResponse:
        """An answer in any case, with what olla tells of itself."""
        response: web.StreamResponse
        try:
            response = await answered()
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
        if response.prepared:  # a stream, which has told all this
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

    def _over(self, record: RequestRecord) -> None:
        record.ended = self.services.clock.now()
        self.services.sink(record)
