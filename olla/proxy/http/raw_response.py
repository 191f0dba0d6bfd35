"""Placeholder responses for aiohttp handlers that write to the transport directly."""

from typing import cast

from aiohttp import web

__all__ = ["WRITTEN_CLOSE", "WRITTEN_KEEP_ALIVE", "written"]


class _Written:
    """A response that the handler has already written to the transport."""

    __slots__ = ("keep_alive",)
    prepared = True

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


WRITTEN_KEEP_ALIVE = cast(web.StreamResponse, _Written(True))
WRITTEN_CLOSE = cast(web.StreamResponse, _Written(False))


def written(keep_alive: bool) -> web.StreamResponse:
    """Return the placeholder for a handler that has written its response to the transport."""
    return WRITTEN_KEEP_ALIVE if keep_alive else WRITTEN_CLOSE
