"""The client's request, as an exchange sees it: whatever server took it in.

A protocol, and the reading of bodies with a bound. `downstream` has the aiohttp version.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from olla.dialects.paths import Target
from olla.failures import Failed, Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.bounds.body_budget import BodyBuffer, BodyCharge
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.http.content_coding import ContentDecoder, Undecodable, coding_of
from olla.proxy.http.credentials import Credential

__all__ = ["IncomingRequest", "body_too_slow", "read_body", "request_id", "too_large"]

_SLICE = 262144
"""Bytes that are decoded at once: a millisecond's work, then others get their turn."""
_RATIO_MAX = 200
_RATIO_FREE = 1_048_576
"""A compressed body may grow this many times, or up to so many bytes: text grows tenfold."""
_SANE_ID = re.compile(r"[!-~]{1,128}")


class IncomingRequest(Protocol):
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

    def decoded(self) -> None:
        """Its body was compressed and is not any more: nobody else is told of a coding."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes, chunk framing removed.

        Raises:
            Failed: the client broke off, or what it sent is no body.
        """
        ...


def request_id(incoming: IncomingRequest, ids: Iterator[str]) -> str:
    """The client's own id where it sent a sane one (printable ASCII, up to 128), else a new one."""
    own = None if incoming.plain else incoming.header("X-Olla-Request-ID")
    if own is not None and _SANE_ID.fullmatch(own):
        return own
    return next(ids)


async def read_body(
    incoming: IncomingRequest,
    limit: int,
    charge: BodyCharge,
    reserve: Callable[[int | None], Awaitable[None]],
) -> bytes:
    """Read the whole body, and decode it where it is compressed. `charge` holds what has arrived,
    and goes on holding it.

    `reserve` is awaited before a body is read that is still to come, or decoded, with its length
    where that is known: it charges the caller's limits.

    Raises:
        Failed: it is longer than `limit` bytes or does not come to its end, there is no room for
            it, a limit of the caller is reached, or it cannot be decoded.
    """
    if not incoming.has_body:
        return b""
    coding = "" if incoming.plain else coding_of(incoming.listed("Content-Encoding"))
    if incoming.length is not None and incoming.length > limit:
        raise Failed(too_large(limit))
    body = incoming.whole()
    if body is None or coding:
        await reserve(incoming.length)
    if coding:
        return await _decoded(incoming, coding, body, _Decoded(coding, limit, charge))
    if body is not None:
        _hold(charge, len(body), limit)
        return body
    if incoming.expects_continue():
        incoming.send_continue()
    buffer = BodyBuffer()
    size = 0
    async for piece in incoming.pieces():
        size += len(piece)
        _hold(charge, size, limit)
        buffer.add(piece)
    return buffer.take()


async def _decoded(
    incoming: IncomingRequest, coding: str, body: bytes | None, decoded: "_Decoded"
) -> bytes:
    """The decoded body, of which all has come (`body`) or nothing yet."""
    try:
        if body is not None:
            await decoded.add(body)
        else:
            if incoming.expects_continue():
                incoming.send_continue()
            async for piece in incoming.pieces():
                await decoded.add(piece)
    except Undecodable as error:
        message = f"the request's body cannot be decoded: {error}"
        raise Failed(Failure(Kind.BAD_REQUEST, message)) from None
    if not decoded.decoder.complete:
        message = f"the request's body ends in the middle of its {coding} data"
        raise Failed(Failure(Kind.BAD_REQUEST, message))
    incoming.decoded()
    return decoded.buffer.take()


class _Decoded:
    """What has been decoded of a body. It is bounded as if it had come as it is."""

    def __init__(self, coding: str, limit: int, charge: BodyCharge) -> None:
        self.decoder = ContentDecoder(coding)
        self.buffer = BodyBuffer()
        self._limit = limit
        self._charge = charge
        self._came = 0
        self._size = 0

    async def add(self, piece: bytes) -> None:
        """Decode a piece of any size; others get their turn meanwhile."""
        self._came += len(piece)
        self.decoder.feed(piece)
        while part := self.decoder.take(_SLICE):
            self._size += len(part)
            if self._size > max(_RATIO_MAX * self._came, _RATIO_FREE):
                raise Failed(_grows_too_much())
            _hold(self._charge, self._size, self._limit)
            self.buffer.add(part)
            await asyncio.sleep(0)


def _grows_too_much() -> Failure:
    return Failure(
        Kind.BODY_TOO_LARGE,
        f"the request's body becomes more than {_RATIO_MAX} times as long when it is decoded; "
        "send it as it is",
    )


def _hold(charge: BodyCharge, size: int, limit: int) -> None:
    failure = too_large(limit) if size > limit else charge.hold(size)
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


def too_large(limit: int) -> Failure:
    """The failure of a request whose body is longer than `limit` bytes."""
    return Failure(
        Kind.BODY_TOO_LARGE,
        f"the request body is over the limit of {limit} bytes "
        "(server.request_limits.max_body_size)",
    )
