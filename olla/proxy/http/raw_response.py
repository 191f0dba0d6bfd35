"""What a handler of aiohttp's returns after it has written its answer to the transport itself."""

from typing import cast

from aiohttp import web

__all__ = ["WRITTEN_CLOSE", "WRITTEN_KEEP_ALIVE", "written"]


class _Written:
    """Stands for an answer that the handler has written to the transport itself."""

    __slots__ = ("keep_alive",)
    prepared = True

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
