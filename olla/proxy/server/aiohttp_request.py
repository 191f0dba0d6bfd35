"""Adapt a request that aiohttp has parsed."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from olla.dialects.dialect import Operation
from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.http.credentials import Credential, credentials
from olla.proxy.http.headers import unchanging_head
from olla.proxy.http.request import body_too_slow

__all__ = ["AiohttpRequest"]

_CONTROL_FIELDS = frozenset(
    {
        *(b"via", b"te", b"content-encoding", b"transfer-encoding"),
        *(b"x-olla-request-id", b"x-olla-endpoint", b"x-olla-explain"),
    }
)


class AiohttpRequest:
    """A request parsed by aiohttp. Implements `IncomingRequest`."""

    __slots__ = (
        "_continued",
        "_request",
        "_timeouts",
        "cors",
        "forwarded_hosts",
        "has_body",
        "headers",
        "hidden",
        "hosts",
        "length",
        "method",
        "origins",
        "peer",
        "plain",
        "target",
    )

    def __init__(self, request: web.BaseRequest, peer: str, timeouts: ClientTimeouts) -> None:
        """`timeouts` limit how slowly the body may arrive."""
        self._request = request
        self._continued = False
        self._timeouts = timeouts
        self.method = request.method
        self.target = request.raw_path
        self.peer = peer
        self.headers: Sequence[tuple[bytes, bytes]] = request.raw_headers
        self.cors = b""
        self.origins: tuple[str, ...] = ()
        """The values of the `Origin` fields."""
        self.hosts: tuple[str, ...] = ()
        self.forwarded_hosts: tuple[str, ...] = ()
        # One loop over the fields costs less than a lookup for each of these.
        self.plain = True
        for name, value in self.headers:
            lower = name.lower()
            if lower == b"host":
                self.hosts += (value.decode("latin-1"),)
            elif lower == b"origin":
                self.origins += (value.decode("latin-1"),)
            elif lower == b"x-forwarded-host":
                self.forwarded_hosts += (value.decode("latin-1"),)
            elif lower in _CONTROL_FIELDS:
                self.plain = False
        self.hidden: frozenset[bytes] | None = None
        self.has_body = request.body_exists
        self.length = request.content_length

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """See `IncomingRequest.credentials`."""
        return credentials(self.headers)

    @property
    def is_preflight(self) -> bool:
        """Tell whether this is a CORS preflight request."""
        return (
            self.method == "OPTIONS"
            and bool(self.origins)
            and not self.has_body
            and self.header("Access-Control-Request-Method") is not None
        )

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return self._request.headers.get(name)

    def listed(self, name: str) -> str | None:
        """See `IncomingRequest.listed`."""
        return ", ".join(self._request.headers.getall(name, ())) or None

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """See `IncomingRequest.outgoing`."""
        return unchanging_head(
            self.method,
            target.upstream_target,
            spec,
            self.headers,
            peer=self.peer,
            via=via,
            hidden=self.hidden,
            readable=target.operation is not Operation.OTHER,
        )

    def expects_continue(self) -> bool:
        """Tell whether the client waits for `100 Continue`."""
        expect = self._request.headers.get("Expect", "")
        return expect.lower() == "100-continue" and self._request.version >= (1, 1)

    def send_continue(self) -> None:
        """Send `100 Continue`, once."""
        transport = self._request.transport
        if not self._continued and transport is not None and not transport.is_closing():
            self._continued = True
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def decoded(self) -> None:
        """See `IncomingRequest.decoded`."""
        self.headers = [
            (name, value) for name, value in self.headers if name.lower() != b"content-encoding"
        ]

    def whole(self) -> bytes | None:
        """See `IncomingRequest.whole`."""
        content = self._request.content
        if not content.is_eof() or content.exception() is not None:
            return None
        return content.read_nowait()

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives."""
        return _Pieces(self._request.content, self._timeouts)


class _Pieces(AsyncIterator[bytes]):
    """Iterates over a body as it arrives, with a time limit.

    Only time spent waiting for the client counts: while the endpoint is slow, the client cannot
    send.
    """

    def __init__(self, content: StreamReader, timeouts: ClientTimeouts) -> None:
        self._content = content
        self._timeouts = timeouts
        self._left = timeouts.body
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> "_Pieces":
        return self

    async def __anext__(self) -> bytes:
        timeouts, began = self._timeouts, self._loop.time()
        silent = timeouts.silence <= self._left
        try:
            async with asyncio.timeout(timeouts.silence if silent else max(self._left, 0.0)):
                piece = await self._content.readany()
        except TimeoutError:
            raise Failed(body_too_slow(timeouts, silent=silent)) from None
        except (HttpProcessingError, web.PayloadAccessError, web.RequestPayloadError) as error:
            raise Failed(
                Failure(Kind.BAD_REQUEST, f"the request's body is malformed: {error}")
            ) from None
        if not piece:
            raise StopAsyncIteration
        waited = self._loop.time() - began
        self._left = timeouts.body_left(self._left - waited, len(piece))
        return piece
