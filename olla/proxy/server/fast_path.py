"""The fast path: hot requests, taken before aiohttp sees them.

aiohttp makes a parser's message, a request object, a stream for the body, two futures and a task
of every request; for a POST with a small JSON body that is more than all of olla's own work. A
request that is understood wholly from its bytes (see `hot_head`) on a connection where aiohttp
waits for the next one needs none of that. Everything else goes to aiohttp untouched, and what
becomes of a request does not depend on who took it in: both hand it to the same exchange.
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
    """A request as the fast path has read it. See `IncomingRequest`."""

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
        """The target without its query."""
        return self._head.path

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return self._head.fields.get(name.lower())

    def listed(self, name: str) -> str | None:
        """See `IncomingRequest.listed`: a hot request has no field twice."""
        return self.header(name)

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """See `IncomingRequest.outgoing`."""
        return self._head.outgoing(target, spec, self.peer, via, self.hidden)

    def expects_continue(self) -> bool:
        """Never: whoever expects anything is aiohttp's."""
        return False

    def send_continue(self) -> None:
        """Nothing."""

    def whole(self) -> bytes | None:
        """Never: a hot request's body is read before the exchange begins."""
        return None

    def decoded(self) -> None:
        """Never: whoever encodes a body is aiohttp's."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Never: a hot request's body is read before the exchange begins."""
        raise AssertionError("a hot request has its body with it")


class HotRequest:
    """A request that is coming in: its head is here, of its body what has come so far."""

    __slots__ = ("charge", "exchange", "head", "length", "missing", "pieces", "reserved", "started")

    def __init__(self, head: HotHead, length: int, started: float) -> None:
        self.head = head
        self.length = length
        self.missing = length
        self.pieces = BodyBuffer()
        self.started = started
        self.exchange: Exchange | None = None
        """Who waits for the rest of its body; None for a short body that is here."""
        self.charge: BodyCharge | None = None
        self.reserved = False
        """Whether the caller's limits let the body be read."""

    def add(self, data: bytes) -> bytes:
        """Take the next bytes; returns those after the body's end."""
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
        """Throw the next bytes away, and those that came before: nobody wants the body."""
        self.pieces.clear()
        self.missing -= min(len(data), self.missing)

    def body(self) -> bytes:
        """The whole body, once."""
        return self.pieces.take()


class FastPath:
    """Tells which requests are hot. One for all connections."""

    __slots__ = ("_body_max", "_heads", "_is_proxy")

    def __init__(
        self,
        paths: Paths,
        body_max: int,
        is_own: Callable[[str], bool] | None = None,
        guard: BrowserGuard | None = None,
        is_proxy: Callable[[str], bool] = lambda peer: False,
    ) -> None:
        """`body_max` is bytes: a longer body is refused, which is aiohttp's affair. `is_own` and
        `guard`: see `HotHeads`. `is_proxy` tells which addresses are those of trusted proxies."""
        self._heads = HotHeads(paths, is_own, guard)
        self._is_proxy = is_proxy
        self._body_max = body_max

    def take(self, data: bytes, now: float, peer: str = "") -> tuple[HotRequest, bytes] | None:
        """The hot request that `data` begins with, and what comes after it; None for another.

        `now` is monotonic seconds, `peer` the address it comes from.
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
