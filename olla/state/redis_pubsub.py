"""Hears what other routers announce. Saying it is `olla.state.redis_pipeline`'s."""

import asyncio
from collections.abc import Callable

from olla.state.redis_reconnect import CONNECTING, Connected, RedisConnection
from olla.tasks import joined, spawn

__all__ = ["CHANNEL", "RedisSubscriber"]

CHANNEL = "olla:announcements"
_PAUSE_LONGEST = 5.0
_QUIET = 10.0
"""Seconds after which a connection that has been silent is asked whether it still lives; one that
says nothing for as long again is given up."""


class RedisSubscriber:
    """A subscription that comes back by itself."""

    def __init__(self, url: str, name: str, heard: Callable[[str], None], *, pause: float) -> None:
        """`heard` takes what routers of other names than `name` announce, and nothing ("") after
        every reconnect, because something may have been missed. `pause` (seconds) comes before the
        first attempt to reconnect, and doubles.

        Raises:
            ValueError: it is no URL of a Redis.
        """
        self._name = name
        self._heard = heard
        self._again = False
        self._alive = True
        self._keeper = RedisConnection(
            url, self._use, lambda _: None, pause=pause, longest=max(pause, _PAUSE_LONGEST)
        )

    async def start(self) -> None:
        """Begin to listen."""
        self._keeper.start()

    async def stop(self) -> None:
        """Listen no more."""
        await self._keeper.stop()

    async def _use(self, connection: Connected) -> None:
        async with asyncio.timeout(CONNECTING):
            await _send(connection, "SUBSCRIBE", CHANNEL)
            await connection.read_response()
        self._keeper.used()
        if self._again:
            self._heard("")
        self._again = True
        # What breaks the one breaks the other, and listening ends by it.
        asking = spawn(self._ask(connection), joined)
        try:
            await self._listen(connection)
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def _listen(self, connection: Connected) -> None:
        while True:
            answer = await connection.read_response()
            self._alive = True
            if answer[0] == b"message":
                name, _, what = answer[2].decode(errors="replace").partition(" ")
                if name != self._name:
                    self._heard(what)

    async def _ask(self, connection: Connected) -> None:
        while True:
            self._alive = False
            await asyncio.sleep(_QUIET)
            if self._alive:
                continue
            await _send(connection, "PING")
            await asyncio.sleep(_QUIET)
            if not self._alive:
                await connection.disconnect(nowait=True)
                return


async def _send(connection: Connected, *words: str) -> None:
    await connection.send_packed_command(connection.pack_command(*words), check_health=False)
