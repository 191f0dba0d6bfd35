"""The interface of a client's request, and reading its body within limits.

`server.aiohttp_request` and `server.fast_path` implement the interface.
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
"""Bytes that are decoded before other callbacks run: a millisecond of work."""
_RATIO_MAX = 200
_RATIO_FREE = 1_048_576
"""A compressed body may expand by this ratio, or to this many bytes. Text expands tenfold."""
_VALID_ID = re.compile(r"[!-~]{1,128}")


class IncomingRequest(Protocol):
    """One client request."""

    method: str
    target: str
    """Path and query as received, still percent-encoded."""
    peer: str
    """The IP address of the other end of the connection."""
    headers: Sequence[tuple[bytes, bytes]]
    length: int | None
    """The Content-Length in bytes; None without one."""
    has_body: bool
    plain: bool
    """True if the request is known to have no header that controls olla, except API keys."""
    cors: bytes
    """The CORS header lines of the response."""
    hidden: frozenset[bytes] | None
    """The fields (in lower case) that carried an olla key, which are never forwarded."""

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """The API keys in the request, of olla or of an endpoint."""
        ...

    def header(self, name: str) -> str | None:
        """Return the first value of a header (case-insensitive)."""
        ...

    def listed(self, name: str) -> str | None:
        """Return all values of a list header, joined in order."""
        ...

    @property
    def path(self) -> str:
        """The target without its query."""
        ...

    def outgoing(self, target: Target, spec: EndpointSpec, via: str | None) -> bytes:
        """Return the head to forward to an endpoint, see `headers.unchanging_head`."""
        ...

    def expects_continue(self) -> bool:
        """Return whether the client waits for `100 Continue` before it sends its body."""
        ...

    def send_continue(self) -> None:
        """Send `100 Continue`."""
        ...

    def whole(self) -> bytes | None:
        """Return the whole body if all of it has arrived, else None."""
        ...

    def decoded(self) -> None:
        """Called once the body is decompressed: removes the coding from the forwarded head."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives, without chunk framing.

        Raises:
            Failed: the client disconnected or sent an invalid body.
        """
        ...


def request_id(incoming: IncomingRequest, ids: Iterator[str]) -> str:
    """Return the client's request id if it is valid (1 to 128 printable ASCII characters), else a
    new one."""
    sent = None if incoming.plain else incoming.header("X-Olla-Request-ID")
    if sent is not None and _VALID_ID.fullmatch(sent):
        return sent
    return next(ids)


async def read_body(
    incoming: IncomingRequest,
    limit: int,
    charge: BodyCharge,
    reserve: Callable[[int | None], Awaitable[None]],
) -> bytes:
    """Read the whole body and decompress it.

    `charge` is charged for the bytes that have arrived and stays charged. `reserve` charges the
    caller's quota; it is awaited before an incomplete body is read and before a body is decoded,
    with the Content-Length if known.

    Raises:
        Failed: the body is longer than `limit` bytes, incomplete or undecodable, or the memory
            budget or the caller's quota is exhausted.
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
        return await _read_encoded(incoming, coding, body, _DecodedBody(coding, limit, charge))
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


async def _read_encoded(
    incoming: IncomingRequest, coding: str, body: bytes | None, decoded: "_DecodedBody"
) -> bytes:
    """Decode a body that has arrived completely (`body`), or read and decode it (None)."""
    try:
        if body is not None:
            await decoded.add(body)
        else:
            if incoming.expects_continue():
                incoming.send_continue()
            async for piece in incoming.pieces():
                await decoded.add(piece)
    except Undecodable as error:
        message = f"the request body cannot be decoded: {error}"
        raise Failed(Failure(Kind.BAD_REQUEST, message)) from None
    if not decoded.decoder.complete:
        message = f"the request body ends in the middle of its {coding} data; send all of it"
        raise Failed(Failure(Kind.BAD_REQUEST, message))
    incoming.decoded()
    return decoded.buffer.take()


class _DecodedBody:
    """Decodes a body with the same limits that apply to an uncompressed one."""

    def __init__(self, coding: str, limit: int, charge: BodyCharge) -> None:
        self.decoder = ContentDecoder(coding)
        self.buffer = BodyBuffer()
        self._limit = limit
        self._charge = charge
        self._received = 0
        self._size = 0

    async def add(self, piece: bytes) -> None:
        """Decode a piece of any size, and yield to the event loop after each slice."""
        self._received += len(piece)
        self.decoder.feed(piece)
        while part := self.decoder.take(_SLICE):
            self._size += len(part)
            if self._size > max(_RATIO_MAX * self._received, _RATIO_FREE):
                raise Failed(_expands_too_much())
            _hold(self._charge, self._size, self._limit)
            self.buffer.add(part)
            await asyncio.sleep(0)


def _expands_too_much() -> Failure:
    return Failure(
        Kind.BODY_TOO_LARGE,
        f"the request body expands to more than {_RATIO_MAX} times its compressed size; "
        "send it uncompressed",
    )


def _hold(charge: BodyCharge, size: int, limit: int) -> None:
    failure = too_large(limit) if size > limit else charge.hold(size)
    if failure is not None:
        raise Failed(failure)


def body_too_slow(timeouts: ClientTimeouts, *, silent: bool) -> Failure:
    """Return the failure of a body that stopped arriving (`silent`) or arrived too slowly."""
    if silent:
        message = (
            f"no bytes of the request body arrived for {timeouts.silence:g} s "
            "(server.read_timeout); send it again"
        )
    else:
        message = (
            f"the request body arrived at less than {timeouts.min_rate:g} bytes per second for "
            f"{timeouts.body:g} s (server.min_rate, server.body_timeout); send it faster"
        )
    return Failure(Kind.REQUEST_TIMEOUT, message)


def too_large(limit: int) -> Failure:
    """Return the failure of a body that is longer than `limit` bytes."""
    return Failure(
        Kind.BODY_TOO_LARGE,
        f"the request body exceeds the limit of {limit} bytes "
        "(server.request_limits.max_body_size)",
    )
