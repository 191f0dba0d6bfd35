"""Parse hot requests without aiohttp: the fast path.

For each request, aiohttp makes a parser message, a request object, a body stream, two futures and
a task. For a POST with a small JSON body that costs more than all of olla's work. The fast path
handles a request that can be parsed from its bytes alone (see `hot_head`) while aiohttp waits for
the next one. It passes all other requests to aiohttp unchanged. Both paths use the same exchange.
"""

from collections.abc import AsyncIterator, Callable, Sequence

from olla.dialects.paths import Paths, Target
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.body_budget import BodyBuffer, BodyCharge
from olla.proxy.exchange.exchange import Exchange
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.server.hot_head import HotHead, HotHeads

__all__ = ["FastPath", "FastRequest", "HotRequest"]


class FastRequest:
    """A request parsed by the fast path. Implements `IncomingRequest`."""

    __slots__ = (
        *("_head", "cors", "credentials", "has_body", "headers", "hidden", "length", "method"),
        *("peer", "plain", "target"),
    )

    def __init__(self, head: HotHead, peer: str, length: int) -> None:
        self._head = head
        self.method = "POST"
        self.target = head.uri
        self.peer = peer
        self.headers: Sequence[tuple[bytes, bytes]] = head.headers
        self.length: int | None = length
        self.has_body = True
        self.plain = head.plain
        self.cors = head.cors
        self.credentials = head.credentials
        self.hidden: frozenset[bytes] | None = None

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self._head.path

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return self._head.fields.get(name.lower())

    def listed(self, name: str) -> str | None:
        """See `IncomingRequest.listed`; a hot request has no repeated fields."""
        return self.header(name)

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """See `IncomingRequest.outgoing`."""
        return self._head.outgoing(target, spec, self.peer, via, self.hidden)

    def expects_continue(self) -> bool:
        """Return False: requests with `Expect` are left to aiohttp."""
        return False

    def send_continue(self) -> None:
        """Do nothing: requests with `Expect` are left to aiohttp."""

    def whole(self) -> bytes | None:
        """Return None: the body is read before the exchange begins."""
        return None

    def decoded(self) -> None:
        """Do nothing: encoded bodies are left to aiohttp."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Raise AssertionError: the body is read before the exchange begins."""
        raise AssertionError("the body of a hot request is not streamed")


class HotRequest:
    """A hot request with the part of its body that has arrived."""

    __slots__ = ("charge", "exchange", "head", "length", "missing", "pieces", "reserved", "started")

    def __init__(self, head: HotHead, length: int, started: float) -> None:
        self.head = head
        self.length = length
        self.missing = length
        self.pieces = BodyBuffer()
        self.started = started
        self.exchange: Exchange | None = None
        """The exchange that waits for the rest of the body; None for a short, complete body."""
        self.charge: BodyCharge | None = None
        self.reserved = False
        """Whether the caller's quota is reserved, so that the body may be read."""

    def add(self, data: bytes) -> bytes:
        """Add the next bytes and return those after the body's end."""
        size = len(data)
        if size <= self.missing:
            self.missing -= size
            self.pieces.add(data)
            return b""
        self.pieces.add(data[: self.missing])
        rest = data[self.missing :]
        self.missing = 0
        return rest

    def skip(self, data: bytes) -> None:
        """Discard the next bytes and all earlier ones, because the request was rejected."""
        self.pieces.clear()
        self.missing -= min(len(data), self.missing)

    def body(self) -> bytes:
        """Return the whole body; may be called once."""
        return self.pieces.take()


class FastPath:
    """Parses hot requests. All connections share one instance."""

    __slots__ = ("_body_max", "_heads", "_is_proxy")

    def __init__(
        self,
        paths: Paths,
        body_max: int,
        is_internal: Callable[[str], bool] | None = None,
        guard: BrowserGuard | None = None,
        is_proxy: Callable[[str], bool] = lambda peer: False,
    ) -> None:
        """Requests with a body of more than `body_max` bytes are left to aiohttp, which rejects
        them. `is_internal` and `guard`: see `HotHeads`. `is_proxy` recognizes the addresses of
        trusted proxies."""
        self._heads = HotHeads(paths, is_internal, guard)
        self._is_proxy = is_proxy
        self._body_max = body_max

    def take(self, data: bytes, now: float, peer: str = "") -> tuple[HotRequest, bytes] | None:
        """Return the hot request at the start of `data` and the bytes after it; None if it is not
        hot.

        `now` is monotonic seconds, `peer` the client's address.
        """
        found = self._heads.find(data)
        if found is None:
            return None
        head, body_at, length = found
        if length > self._body_max:
            return None
        if head.from_proxy_only and not self._is_proxy(peer):
            return None
        request = HotRequest(head, length, now)
        rest = request.add(data[body_at:]) if len(data) > body_at else b""
        return request, rest
