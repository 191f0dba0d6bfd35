"""Small requests of olla's own to an endpoint: to load a model, or to see whether it works."""

import asyncio

from olla.dialects.records import error_text, json_object
from olla.failures import Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.headers import request_head, unchanging_head
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import Pool

__all__ = ["number", "post_to_endpoint"]

_ANSWER_MAX = 65536
"""Bytes; the answer to such a request is some hundred."""
_JSON = ((b"Content-Type", b"application/json"),)


def number(value: float) -> float | int:
    """A load option as it is written: whole numbers without a point."""
    return int(value) if value == int(value) else value


async def post_to_endpoint(
    pool: Pool, spec: EndpointSpec, path: str, body: bytes, request_id: str
) -> Failure | None:
    """POST a JSON body; None when the answer was a good one, else what was the matter with it.

    Whoever cancels it hangs up on the endpoint.

    Raises:
        Failed: no connection could be made.
    """
    unchanging = unchanging_head("POST", path, spec, _JSON, peer="127.0.0.1")
    head = request_head(unchanging, request_id, len(body), chunked=False)
    connection = pool.take_idle(spec)
    while True:
        fresh = connection is None
        if connection is None:
            connection = await pool.connect(spec)
        answer = _Receiver(spec.name)
        connection.begin("POST", answer)
        connection.write(head + body)
        connection.sent = True
        try:
            failure = await answer.done
        except asyncio.CancelledError:
            connection.abort()
            raise
        if fresh or failure is None or failure.kind is not Kind.RESET:
            return failure
        connection = None  # an idle connection that had been closed meanwhile


class _Receiver:
    """Takes the answer to a request of olla's own, see `upstream.Receiver`."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._head: ResponseHead | None = None
        self._body = b""
        self.done: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

    def head(self, head: ResponseHead, more: bool) -> None:
        """It begins."""
        self._head = head

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """It goes on."""
        if len(self._body) < _ANSWER_MAX:
            self._body += b"".join(payload)

    def end(self, trailers: bytes) -> None:
        """It is complete."""
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
        """It will not become complete."""
        self._settle(Failure(kind, f"endpoint '{self._endpoint}' {message}", self._endpoint))

    def _settle(self, failure: Failure | None) -> None:
        if not self.done.done():
            self.done.set_result(failure)


def _error_text(body: bytes) -> str | None:
    """What an answer says went wrong; None when it says nothing."""
    error = (json_object(body) or {}).get("error")
    text = None if error is None else error_text(error, 500)
    if text is None:
        return None
    # It goes into the log, which may be a terminal.
    return "".join(c if c.isprintable() else "?" for c in text)
