"""Send small requests from the router to an endpoint: to load a model or to check it."""

import asyncio

from olla.dialects.records import error_text, json_object
from olla.failures import Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.headers import request_head, unchanging_head
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import Pool

__all__ = ["number", "post_to_endpoint"]

_RESPONSE_MAX = 65536
"""Bytes of a response that are kept; a normal one has a few hundred."""
_JSON = ((b"Content-Type", b"application/json"),)


def number(value: float) -> float | int:
    """Return a load option as JSON writes it: whole numbers without a decimal point."""
    return int(value) if value == int(value) else value


async def post_to_endpoint(
    pool: Pool, spec: EndpointSpec, path: str, body: bytes, request_id: str
) -> Failure | None:
    """POST a JSON body and return the failure, or None if the endpoint succeeded.

    A request on an idle connection that the endpoint has closed is repeated on another connection.
    Cancellation closes the connection to the endpoint.

    Raises:
        Failed: no connection could be opened.
    """
    unchanging = unchanging_head("POST", path, spec, _JSON, peer="127.0.0.1")
    head = request_head(unchanging, request_id, len(body), chunked=False)
    connection = pool.take_idle(spec)
    while True:
        fresh = connection is None
        if connection is None:
            connection = await pool.connect(spec)
        receiver = _Receiver(spec.name)
        connection.begin("POST", receiver)
        connection.write(head + body)
        connection.sent = True
        try:
            failure = await receiver.done
        except asyncio.CancelledError:
            connection.abort()
            raise
        if fresh or failure is None or failure.kind is not Kind.RESET:
            return failure
        connection = None  # the endpoint had closed the idle connection


class _Receiver:
    """Collects the response to such a request; implements `upstream.Receiver`."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._head: ResponseHead | None = None
        self._body = b""
        self.done: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

    def head(self, head: ResponseHead, more: bool) -> None:
        """Store the response's head."""
        self._head = head

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Append body data, up to `_RESPONSE_MAX` bytes."""
        if len(self._body) < _RESPONSE_MAX:
            self._body += b"".join(payload)

    def end(self, trailers: bytes) -> None:
        """Settle the result from the complete response."""
        assert self._head is not None
        status, text = self._head.status, _error_text(self._body)
        if status == 200 and text is None:
            self._settle(None)
            return
        message = f"endpoint '{self._endpoint}' answered {text or status}"
        self._settle(
            Failure(
                Kind.UPSTREAM_STATUS,
                message,
                self._endpoint,
                endpoint_status=status if status != 200 else 500,
            )
        )

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """Settle the result of an incomplete response."""
        self._settle(Failure(kind, f"endpoint '{self._endpoint}' {message}", self._endpoint))

    def _settle(self, failure: Failure | None) -> None:
        if not self.done.done():
            self.done.set_result(failure)


def _error_text(body: bytes) -> str | None:
    """Return the error text of a response body; None if it has none."""
    error = (json_object(body) or {}).get("error")
    text = None if error is None else error_text(error, 500)
    if text is None:
        return None
    # The text is logged, perhaps to a terminal: replace control characters.
    return "".join(c if c.isprintable() else "?" for c in text)
