"""How a simulated node writes answers: whole, or as a stream whose head waits for its first record.

Where faults strike in the middle of an answer is decided here too.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from olla.simulation.faults import Trouble

__all__ = ["TROUBLE", "ApiError", "as_json", "read_object", "rfc3339", "stream"]

TROUBLE = web.RequestKey("trouble", Trouble)


class ApiError(Exception):
    """An error with a status, to be written in the shape of the API that was asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's JSON object, whatever its Content-Type.

    Raises:
        ApiError: it has none.
    """
    raw = await request.read()
    if not raw:
        raise ApiError(400, "missing request body")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"invalid JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the request body must be a JSON object")
    return body


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
    request: web.Request, content_type: str, records: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """Send records as they come, one chunk each. Nothing is sent before there is a first one.

    Raises:
        ApiError: what `records` raises before its first record.
    """
    trouble = request.get(TROUBLE)
    response = web.StreamResponse(headers={"Content-Type": content_type})
    response.enable_chunked_encoding()
    sent = 0
    async for record in records:
        if trouble is not None and trouble.kind in ("reset_mid", "end_early"):
            if sent >= trouble.fault.after:
                await _cut(request, response, trouble)
                return response
        elif trouble is not None and trouble.kind == "garbage_body":
            record = b'{"this is": not JSON\n\n'
        if not response.prepared:
            await response.prepare(request)
        await response.write(record)
        sent += 1
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def _cut(request: web.Request, response: web.StreamResponse, trouble: Trouble) -> None:
    if not response.prepared:
        await response.prepare(request)
    if trouble.kind == "end_early":
        await response.write_eof()
        return
    transport = request.transport
    if transport is not None:
        await asyncio.sleep(0)  # let what was written go out first
        transport.abort()
