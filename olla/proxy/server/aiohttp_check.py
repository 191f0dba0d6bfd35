"""Check that the installed aiohttp works as the fast path expects."""

import asyncio

from olla.proxy.server.aiohttp_internals import AiohttpServer, Connection

__all__ = ["fault"]


class _NullTransport(asyncio.Transport):
    """A transport that discards its data."""

    def is_closing(self) -> bool:
        return False

    def _nothing(self, *_: object, **__: object) -> None:
        pass

    write = close = abort = pause_reading = resume_reading = set_write_buffer_limits = _nothing


async def fault(server: AiohttpServer) -> str | None:
    """Return why the fast path cannot rely on the installed aiohttp; None if it can.

    Opens a connection without a client. The connection must report that it waits for a request
    exactly when no request is half-read.
    """
    try:
        connection = server()
        assert isinstance(connection, Connection)
        connection.connection_made(_NullTransport())
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if not connection.waits() or connection.half_read():
                return "a new connection does not wait for a request"
            connection.hand_to_aiohttp(b"POST /nowhere HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
            if not connection.half_read():
                return "a half-read request is not detected"
        finally:
            connection.connection_lost(None)
            for _ in range(3):
                await asyncio.sleep(0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
