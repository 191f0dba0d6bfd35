"""The client's request, as an exchange sees it: whatever server took it in.

A protocol, and the reading of bodies with a bound. `downstream` has the aiohttp version.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.body_budget import BodyCharge
from olla.proxy.client_timeouts import ClientTimeouts
from olla.proxy.credentials import Credential

__all__ = ["Incoming", "body_too_slow", "read_body", "request_id"]

_SANE_ID = re.compile(r"[!-~]{1,128}")


class Incoming(Protocol):
    """One request."""

    method: str
    target: str
    """Path and query as they came, percent-encoding untouched."""
    peer: str
    """The IP address of the other end of the connection."""
    headers: Sequence[tuple[bytes, bytes]]
    length: int | None
    """Content-Length in bytes; None when there is none."""
    has_body: bool
    plain: bool
    """It is known to have none of the headers that olla itself obeys, keys apart."""
    cors: bytes
    """The fields that tell a browser who may read the answer, each with its line end."""
    hidden: frozenset[bytes] | None
    """The fields (in lower case) that showed olla a key: they are for nobody else."""

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """The keys it shows, whosever they are."""
        ...

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        ...

    def listed(self, name: str) -> str | None:
        """All values of a header that is a list, joined in their order."""
        ...

    @property
    def path(self) -> str:
        """The target without its query."""
        ...

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """What of its head goes to an endpoint, see `headers.unchanging_head`."""
        ...

    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends its body."""
        ...

    def send_continue(self) -> None:
        """Tell it to go on."""
        ...

    def whole(self) -> bytes | None:
        """The whole body, where all of it has come already."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, chunk framing removed.

        Raises:
            Failed: the client broke off, or what it sent is no body.
        """
        ...


def request_id(incoming: Incoming, ids: Iterator[str]) -> str:
    """The client's own id where it sent a sane one (printable ASCII, up to 128), else a new one."""
    own = None if incoming.plain else incoming.header("X-Olla-Request-ID")
    if own is not None and _SANE_ID.fullmatch(own):
        return own
    return next(ids)


async def read_body(
    incoming: Incoming,
    limit: int,
    charge: BodyCharge,
    reserve: Callable[[int | None], Awaitable[None]],
) -> bytes:
    """Read the whole body. `charge` holds what has arrived, and goes on holding it.

    `reserve` is awaited before a body that is still to come is read, with its length where that is
    known: it charges the caller's limits.

    Raises:
        Failed: it is longer than `limit` bytes or does not come to its end, there is no room for
            it, or a limit of the caller is reached.
    """
    if not incoming.has_body:
        return b""
    if incoming.length is not None and incoming.length > limit:
        raise Failed(_too_large(limit))
    body = incoming.whole()
    if body is not None:
        _hold(charge, len(body), limit)
        return body
    await reserve(incoming.length)
    if incoming.expects_continue():
        incoming.send_continue()
    pieces: list[bytes] = []
    size = 0
    async for piece in incoming.pieces():
        size += len(piece)
        _hold(charge, size, limit)
        pieces.append(piece)
    return b"".join(pieces)


def _hold(charge: BodyCharge, size: int, limit: int) -> None:
    failure = _too_large(limit) if size > limit else charge.hold(size)
    if failure is not None:
        raise Failed(failure)


def body_too_slow(timeouts: ClientTimeouts, *, silent: bool) -> Failure:
    """The failure of a request whose body has stopped (`silent`), or comes too slowly."""
    if silent:
        message = (
            f"the request's body stopped for {timeouts.silence:g} s (server.read_timeout); "
            "send it again"
        )
    else:
        message = (
            f"the request's body came at less than {timeouts.min_rate:g} bytes a second for "
            f"{timeouts.body:g} s (server.min_rate, server.body_timeout); send it faster"
        )
    return Failure(Kind.REQUEST_TIMEOUT, message)


def _too_large(limit: int) -> Failure:
    return Failure(
        Kind.BODY_TOO_LARGE,
        f"the request body is over the limit of {limit} bytes "
        "(server.request_limits.max_body_size)",
    )
