"""An error as a whole HTTP response: through aiohttp, or as bytes on the connection.

What the body says is the dialect's business, which status follows the failure's; here the two
become a response with the headers that make clients behave.
"""

from collections.abc import Iterable
from math import ceil

from aiohttp import web
from multidict import CIMultiDict

from olla.dialects.dialect import Dialect
from olla.failures import Failure
from olla.proxy.http.message_fields import reason_phrase

__all__ = ["add_fields", "error_answer", "error_headers", "error_response"]

_RETRIABLE_4XX = frozenset({408, 429})
_ALWAYS_RETRY_AFTER = frozenset({429, 503})


def error_headers(failure: Failure, dialect: Dialect) -> list[tuple[str, str]]:
    """The headers an error needs: type, when to come again, whether to come again at all.

    The OpenAI and Anthropic SDKs repeat most failed requests unless `x-should-retry` forbids it.
    """
    # Ollama names the charset under /api and does not under /v1.
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
    """The failure as a response in a dialect, with `headers` besides its own."""
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
    """The same as bytes, for answers that are written to the connection directly.

    `fields` are more header lines, `Date` among them, each with its line end; `minor` is the
    client's HTTP/1 version; `bodiless` an answer to HEAD.
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


def add_fields(response: web.StreamResponse, fields: bytes) -> None:
    """Add header lines, each with its line end, to a response that has not begun."""
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        response.headers.add(name.decode(), value.decode())
