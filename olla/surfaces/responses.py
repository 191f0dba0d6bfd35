"""Build responses of olla's own APIs: JSON that must not be cached.

The surfaces define their content.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

__all__ = ["JSON", "JSON_UTF8", "iso_time", "json_response", "list_response"]

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"
"""Ollama's media type under `/api`; under `/v1` it omits the charset."""

_PIECE = 131_072
"""Minimum bytes per write of a long body."""
_WALL_MAX = 253_402_300_799.0
"""The last second of the year 9999."""


class _InPieces(Payload):
    """A long body that is written in pieces as the client reads it.

    Written at once, nine megabytes blocked the loop for 30 ms, and a client that did not read kept
    all of them in its connection's buffer.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(pieces)
        self._pieces = pieces
        self._size = sum(map(len, pieces))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, waiting for the client."""
        for piece in self._pieces:
            await writer.write(piece)
            await asyncio.sleep(0)


def list_response(
    before: bytes, rows: Iterable[bytes], after: bytes, content_type: str = JSON
) -> web.Response:
    """Build a list of JSON values of any length, between the JSON before and after it."""
    pieces: list[bytes] = []
    held, size = [before], 0
    for number, row in enumerate(rows):
        if number:
            held.append(b",")
        held.append(row)
        size += len(row)
        if size >= _PIECE:
            pieces.append(b"".join(held))
            held, size = [], 0
    pieces.append(b"".join([*held, after]))
    return web.Response(
        body=_InPieces(pieces) if len(pieces) > 1 else pieces[0],
        headers={"Content-Type": content_type, "Cache-Control": "no-store"},
    )


def json_response(
    value: object,
    *,
    status: int = 200,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Build a response with `value` as JSON that must not be cached."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(value, enc_hook=_plain),
        headers={"Content-Type": content_type, "Cache-Control": "no-store", **(headers or {})},
    )


def iso_time(wall: float | None) -> str | None:
    """Format Unix seconds as RFC 3339 in UTC, with milliseconds; None for None."""
    if wall is None:
        return None
    when = datetime.fromtimestamp(min(max(wall, 0.0), _WALL_MAX), UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(type(value))
