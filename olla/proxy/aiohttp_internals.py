"""The only door to aiohttp's private hooks: what we lean on, and nothing else.

Used by `downstream` alone. What is relied on, and why:

* `RequestHandler` may be subclassed, and `Server.__call__` makes it. (Documented only for
  `Server`.)
* `RequestHandler.handle_error` answers what the parser refused: we answer in the path's dialect.
* `_messages` holds (message, payload) pairs that were parsed and wait for the handler, with an
  `_ErrInfo` for what could not be, and `_request_count` counts them: with these we know whether
  a head is still incomplete, which bounds a head's total size.
* A handler may return any object with `prepare`, `write_eof` and `keep_alive`: that is how we say
  that the answer was already written to the transport.
* `pause_writing` and `resume_writing` are asyncio's own.

`tests/proxy/test_aiohttp_internals.py` fails loudly when one of these is no longer so.
"""

from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo

__all__ = ["WRITTEN_CLOSE", "WRITTEN_KEEP_ALIVE", "Connection", "Server", "written"]


class _Written:
    """Stands for an answer that the handler has written to the transport itself."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to be sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


WRITTEN_KEEP_ALIVE = cast(web.StreamResponse, _Written(True))
WRITTEN_CLOSE = cast(web.StreamResponse, _Written(False))


def written(keep_alive: bool) -> web.StreamResponse:
    """What a handler returns after it has written its answer to the transport."""
    return WRITTEN_KEEP_ALIVE if keep_alive else WRITTEN_CLOSE


class Connection(RequestHandler):
    """A client's connection: aiohttp's, with a bound on a head's size and a drain callback."""

    __slots__ = (
        "_drained",
        "_head_size",
        "_head_start",
        "_last_payload",
        "_refused",
        "_seen",
        "_server",
    )

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._drained: Callable[[], None] | None = None
        self._head_start = b""
        self._head_size = 0
        self._seen = 0
        self._last_payload: Any = None
        self._refused = False

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once what was written has gone out far enough."""
        self._drained = callback

    def resume_writing(self) -> None:
        """asyncio: the transport's buffer is low again."""
        super().resume_writing()
        callback, self._drained = self._drained, None
        if callback is not None:
            callback()

    def connection_lost(self, exc: BaseException | None) -> None:
        """asyncio: the connection is gone."""
        self._drained = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came. Counts those of an unfinished head."""
        if self._refused:
            return  # the rest of what will be answered with an error
        between = self._last_payload is None or self._last_payload.is_eof()
        if between and not self._head_size:
            self._head_start = data
        super().data_received(data)
        if self._request_count != self._seen:
            self._seen = self._request_count
            self._head_size = 0
            if self._messages:
                message, self._last_payload = self._messages[-1]
                self._refused = isinstance(message, _ErrInfo)
            if not self._refused:
                self._head_start = b""  # it holds a whole read, perhaps with a large body
        elif between:
            self._head_size += len(data)
            if self._head_size > self._server.head_max:
                self._refuse_head()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp's parser refused, or what a handler let escape."""
        too_long = isinstance(exc, LineTooLong) or "Too many" in (message or "")
        text = str(message or exc or "").splitlines()
        reason = text[0].rstrip(":") if text else ""
        self._write_refusal(431 if too_long else status, reason, exc)
        return WRITTEN_CLOSE

    def _refuse_head(self) -> None:
        if self._request_in_progress or self._messages:
            self.force_close()  # an answer here would mix with the one that is under way
            return
        self._write_refusal(431, "", None)
        transport = self.transport
        self.close()
        if transport is not None:
            transport.close()

    def _write_refusal(self, status: int, message: str, exc: BaseException | None) -> None:
        answer = self._server.refusal(self._head_start, status, message, exc)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(answer)


class Server(web.Server):
    """aiohttp's low-level server, making our connections.

    `head_max` bounds a request's head, in bytes; `refusal` makes the answer to bytes that are no
    request: from the first bytes received, the status, the parser's message and, where a handler
    let one escape, the exception.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Any],
        *,
        head_max: int,
        refusal: Callable[[bytes, int, str, BaseException | None], bytes],
        **options: Any,
    ) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=head_max,
            max_field_size=head_max,
            max_headers=1024,
            **options,
        )
        self.head_max = head_max
        self.refusal = refusal

    def __call__(self) -> RequestHandler:
        """A new connection's protocol."""
        return Connection(self, loop=self._loop, **self._kwargs)
