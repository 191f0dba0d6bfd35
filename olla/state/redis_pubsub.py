"""Subscribes to what other routers announce. `redis_pipeline` publishes it."""

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import RedisError

from olla.tasks import spawn

__all__ = ["CHANNEL", "RedisSubscriber"]

CHANNEL = "olla:announcements"
_CONNECT_SECONDS_MAX = 1.0
_PAUSE_SECONDS_MAX = 5.0
_QUIET_SECONDS = 10.0
"""After this silence the server is pinged, and after as much again the connection is closed: the
library pings too, but never notices that no answer comes."""


class RedisSubscriber:
    """A subscription that reconnects."""

    def __init__(self, url: str, name: str, heard: Callable[[str], None], *, pause: float) -> None:
        """`heard` is called with each announcement of a router of another name than `name`, and
        with an empty text after each reconnect, because announcements may have been missed.
        `pause` is the seconds before the first attempt to reconnect; it doubles with each failure.

        Raises:
            ValueError: the URL is not one of a Redis server.
        """
        self._name = name
        self._heard = heard
        self._client = Redis.from_url(
            url,
            socket_connect_timeout=_CONNECT_SECONDS_MAX,
            # A reconnect that the library makes unseen would hide what was missed.
            retry=Retry(NoBackoff(), 0),
        )
        self._backoff = ExponentialBackoff(cap=max(pause, _PAUSE_SECONDS_MAX), base=pause)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to listen."""
        self._task = spawn(self._run())

    async def stop(self) -> None:
        """Stop, and close the connection."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._client.aclose()

    async def _run(self) -> None:
        failures, connected = 0, False
        while True:
            try:
                async with self._client.pubsub() as pubsub:
                    async with asyncio.timeout(_CONNECT_SECONDS_MAX):
                        await pubsub.subscribe(CHANNEL)
                        await pubsub.get_message(timeout=_CONNECT_SECONDS_MAX)
                    if connected:
                        self._heard("")
                    failures, connected = 0, True
                    await self._listen(pubsub)
            except (RedisError, OSError):
                pass  # whether Redis is away is for the pipeline to report
            await asyncio.sleep(self._backoff.compute(failures))
            failures += 1

    async def _listen(self, pubsub: PubSub) -> None:
        """Pass announcements on until the connection fails.

        Raises:
            RedisError, OSError: it did.
        """
        pinged = False
        while True:
            message = await pubsub.get_message(timeout=_QUIET_SECONDS)
            if message is None:
                if pinged:
                    return
                pinged = True
                await pubsub.ping()
                continue
            pinged = False
            if message["type"] == "message":
                name, _, text = message["data"].decode(errors="replace").partition(" ")
                if name != self._name:
                    self._heard(text)
