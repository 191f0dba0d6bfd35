"""Build the HTTP response of an error, for aiohttp or as raw bytes.

The dialect writes the body, and the failure determines the status. This module adds the headers
that tell clients whether and when to retry.
"""

from collections.abc import Iterable
from math import ceil

from aiohttp import web
from multidict import CIMultiDict

from olla.dialects.dialect import Dialect
from olla.failures import Failure
from olla.proxy.http.message_fields import reason_phrase

__all__ = ["add_fields", "error_answer", "error_headers", "error_response", "json_head"]

_RETRIABLE_4XX = frozenset({408, 429})
_ALWAYS_RETRY_AFTER = frozenset({429, 503})


def error_headers(failure: Failure, dialect: Dialect) -> list[tuple[str, str]]:
    """Return the headers of an error: its content type, and whether and when to retry.

    The OpenAI and Anthropic SDKs retry most failed requests unless `x-should-retry` forbids it.
    """
    # Ollama sends a charset under /api and none under /v1.
    json = "application/json; charset=utf-8" if dialect.name == "ollama" else "application/json"
    headers = [("Content-Type", json)]
    status = failure.status
    if failure.retry_after is not None or status in _ALWAYS_RETRY_AFTER:
        headers.append(("Retry-After", str(max(1, ceil(failure.retry_after or 1)))))
    if 400 <= status < 500 and status not in _RETRIABLE_4XX:
        headers.append(("x-should-retry", "false"))
    return headers


def error_response(
    failure: Failure, dialect: Dialect, headers: Iterable[tuple[str, str]] = ()
) -> web.Response:
    """Return the failure as an aiohttp response in a dialect, with additional `headers`."""
    return web.Response(
        status=failure.status,
        reason=reason_phrase(failure.status),
        body=dialect.error_body(failure),
        headers=CIMultiDict([*error_headers(failure, dialect), *headers]),
    )


def error_answer(
    failure: Failure,
    dialect: Dialect,
    fields: bytes,
    *,
    keep_alive: bool,
    minor: int,
    bodiless: bool,
) -> bytes:
    """Return the failure as bytes, for responses that are written to the connection directly.

    `fields` are additional header lines including `Date`; `minor` is the client's HTTP/1 version;
    `bodiless` is True for a response to HEAD.
    """
    body = dialect.error_body(failure)
    lines = [f"HTTP/1.1 {failure.status} {reason_phrase(failure.status)}", "Server: olla"]
    lines += [f"{name}: {value}" for name, value in error_headers(failure, dialect)]
    lines.append(f"Content-Length: {len(body)}")
    if not keep_alive:
        lines.append("Connection: close")
    elif minor == 0:
        lines.append("Connection: keep-alive")
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n" + fields + b"\r\n"
    return head if bodiless else head + body


def json_head(length: int, fields: bytes, *, keep_alive: bool, minor: int) -> bytes:
    """The head of an answer of olla's own with a JSON body of `length` bytes, see
    `error_answer`."""
    connection = b""
    if not keep_alive:
        connection = b"Connection: close\r\n"
    elif minor == 0:
        connection = b"Connection: keep-alive\r\n"
    return (
        b"HTTP/1.1 200 OK\r\nServer: olla\r\nContent-Type: application/json; charset=utf-8\r\n"
        b"Content-Length: %d\r\n%b%b\r\n" % (length, connection, fields)
    )


def add_fields(response: web.StreamResponse, fields: bytes) -> None:
    """Add header lines to a response that has not been started."""
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        response.headers.add(name.decode(), value.decode())
