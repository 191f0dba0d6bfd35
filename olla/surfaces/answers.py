"""How olla's own answers look: JSON that nobody caches, and only for who reads.

What is in them is the business of the surfaces.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from olla.dialects.own import Own
from olla.failures import Failure, Kind
from olla.proxy.error_response import error_response

__all__ = ["JSON", "JSON_UTF8", "Surface", "iso_time", "json_response", "read_only"]

Surface = Callable[[web.BaseRequest], Awaitable[web.Response]]
"""Answers one path."""

JSON = "application/json"
JSON_UTF8 = "application/json; charset=utf-8"
"""What Ollama says under `/api`; under `/v1` it leaves the charset out."""

_WALL_MAX = 253_402_300_799.0
"""The last second of the year 9999."""


def json_response(
    value: object,
    *,
    status: int = 200,
    content_type: str = JSON,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """`value` as JSON, fresh every time."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(value, enc_hook=_plain),
        headers={"Content-Type": content_type, "Cache-Control": "no-store", **(headers or {})},
    )


def read_only(answer: Surface) -> Surface:
    """`answer` for GET and HEAD (aiohttp leaves the body out for HEAD); 405 for the rest."""

    async def surface(request: web.BaseRequest) -> web.Response:
        if request.method in ("GET", "HEAD"):
            return await answer(request)
        failure = Failure(
            Kind.METHOD_NOT_ALLOWED,
            f"{request.method} is not possible on {request.path}; use GET",
        )
        return error_response(failure, Own(), [("Allow", "GET, HEAD")])

    return surface


def iso_time(wall: float | None) -> str | None:
    """Unix seconds as RFC 3339 in UTC, with milliseconds; None for None."""
    if wall is None:
        return None
    when = datetime.fromtimestamp(min(max(wall, 0.0), _WALL_MAX), UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(type(value))
