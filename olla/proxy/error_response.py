"""An error as a whole HTTP response, for everything that answers through aiohttp.

What the body says is the dialect's business, which status follows the failure's; here the two
become a response with the headers that make clients behave.
"""

from collections.abc import Iterable
from http import HTTPStatus
from math import ceil

from aiohttp import web
from multidict import CIMultiDict

from olla.dialects.dialect import Dialect
from olla.failures import Failure

__all__ = ["error_headers", "error_response", "reason_phrase"]

_RETRIABLE_4XX = frozenset({408, 429})


def error_headers(failure: Failure, dialect: Dialect) -> list[tuple[str, str]]:
    """The headers an error needs: type, when to come again, whether to come again at all.

    The OpenAI and Anthropic SDKs repeat most failed requests unless `x-should-retry` forbids it.
    """
    # Ollama names the charset under /api and does not under /v1.
    json = "application/json; charset=utf-8" if dialect.name == "ollama" else "application/json"
    headers = [("Content-Type", json)]
    if failure.retry_after is not None:
        headers.append(("Retry-After", str(max(1, ceil(failure.retry_after)))))
    status = failure.status
    if 400 <= status < 500 and status not in _RETRIABLE_4XX:
        headers.append(("x-should-retry", "false"))
    return headers


def reason_phrase(status: int) -> str:
    """The standard reason phrase of a status; empty where there is none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else ""


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
