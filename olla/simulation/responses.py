"""Write the responses of a simulated node: whole, or as a stream whose head waits for its first
record.

Faults in the middle of a response are injected here too.
"""

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from olla.simulation.faults import Trouble

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor
else:
    from backports.zstd import ZstdDecompressor

__all__ = [
    "GARBAGE",
    "TROUBLE",
    "ApiError",
    "as_json",
    "read_object",
    "reset",
    "rfc3339",
    "spoil",
    "stream",
]

TROUBLE = web.RequestKey("trouble", Trouble)
GARBAGE = b'{"this is": not JSON\n\n'
_ZSTD = frozenset(
    f"/v1/{name}"
    for name in ("chat/completions", "completions", "embeddings", "responses", "messages")
)
_DECODED_MAX = 20 << 20
_CUTS = ("reset_mid", "end_early", "hang_mid", "bad_framing", "short_body")


class ApiError(Exception):
    """An error with a status, to be written in the shape of the API that was asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's JSON object, whatever its Content-Type. Compressed bodies are taken where
    Ollama takes them: zstd, on some paths of `/v1`.

    Raises:
        ApiError: it has none.
    """
    raw = await request.read()
    if request.headers.get("Content-Encoding") == "zstd" and request.path in _ZSTD:
        raw = _plain(raw)
    if not raw:
        raise ApiError(400, "missing request body")
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"invalid JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the request body must be a JSON object")
    return body


def _plain(raw: bytes) -> bytes:
    try:
        return ZstdDecompressor().decompress(raw, _DECODED_MAX)
    except Exception as error:  # ZstdError
        raise ApiError(400, f"invalid zstd: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"invalid character in literal {name}")


def as_json(value: object, *, native: bool, status: int = 200) -> web.Response:
    """A JSON answer. Native ones name their charset, as Ollama's do."""
    response = web.Response(status=status, body=json.dumps(value, separators=(",", ":")).encode())
    response.headers["Content-Type"] = (
        "application/json; charset=utf-8" if native else "application/json"
    )
    return response


def rfc3339(unix: float) -> str:
    """A time as Ollama writes it; what lies beyond the calendar becomes its last year."""
    latest = datetime(9998, 12, 31, tzinfo=UTC)
    try:
        when = datetime.fromtimestamp(unix, UTC)
    except (ValueError, OverflowError, OSError):
        when = latest
    return min(when, latest).isoformat().replace("+00:00", "Z")


async def stream(
    request: web.Request,
    content_type: str,
    records: AsyncGenerator[bytes, None],
    headers: dict[str, str] | None = None,
) -> web.StreamResponse:
    """Send records as they come, one chunk each. Nothing is sent before there is a first one.

    Raises:
        ApiError: what `records` raises before its first record.
    """
    trouble = request.get(TROUBLE)
    response = web.StreamResponse(headers={**(headers or {}), "Content-Type": content_type})
    response.enable_chunked_encoding()
    sent = 0
    async for record in records:
        if trouble is not None:
            if trouble.kind in _CUTS and sent >= trouble.fault.after:
                return await _cut(request, response, trouble)
            if trouble.kind == "garbage_body":
                record = GARBAGE
            elif trouble.pause and sent:
                await asyncio.sleep(trouble.pause)
        if not response.prepared:
            await response.prepare(request)
        await response.write(record)
        sent += 1
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def spoil(
    request: web.Request, response: web.StreamResponse, trouble: Trouble
) -> web.StreamResponse:
    """Let a fault strike an answer that is no stream. One that has been sent is left alone."""
    if response.prepared or not isinstance(response, web.Response):
        return response
    body = response.body if isinstance(response.body, bytes) else b""
    if trouble.kind == "garbage_body":
        response.body = GARBAGE
        return response
    if trouble.kind not in _CUTS:
        return response
    part = web.StreamResponse(headers={"Content-Type": response.headers["Content-Type"]})
    if trouble.kind in ("reset_mid", "hang_mid", "short_body"):
        part.content_length = len(body)
    else:
        part.enable_chunked_encoding()
    await part.prepare(request)
    await part.write(body[: len(body) // 2])
    return await _cut(request, part, trouble)


def reset(transport: asyncio.Transport) -> None:
    """Break a connection off so that the other end sees a reset, not an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        # Options belong to the open socket, so a second descriptor reaches it too, whatever the
        # loop lets one do with its own.
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _cut(
    request: web.Request, response: web.StreamResponse, trouble: Trouble
) -> web.StreamResponse:
    """End an answer too early: cleanly, or with a reset."""
    if not response.prepared:
        await response.prepare(request)
    if trouble.kind == "end_early":
        await response.write_eof()
    elif trouble.kind == "hang_mid":
        await asyncio.Event().wait()
    elif trouble.kind in ("bad_framing", "short_body") and request.transport is not None:
        if trouble.kind == "bad_framing":
            request.transport.write(b"zz\r\n")
        request.transport.close()
    elif request.transport is not None:
        await asyncio.sleep(0)  # let what was written go out first
        reset(request.transport)
    return response
