"""Run scripts on Redis, pipelined over one connection, and track whether Redis is available.

Commands are sent as they arrive, and responses come back in order, so no command waits for the
response of another. One time limit covers all. While Redis is unavailable, calls fail at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis.exceptions import NoScriptError, ResponseError
from structlog.typing import FilteringBoundLogger

from olla.state.redis_reconnect import CONNECTING, Connected, RedisConnection
from olla.state.scripts import CHARGE, RENEW, SETTLE, Script
from olla.tasks import joined, spawn

__all__ = ["Answer", "RedisPipeline", "Word"]

Word = bytes | str | int | float
Answer = asyncio.Future[bytes | None]
"""A response of Redis; None while Redis is unavailable."""

_WAITING_MAX = 10_000
"""Responses. With this many pending, Redis counts as unavailable."""
_TRIED = ("", "", "", 1, 0, 0, "r", 0, 60, 1, 60, "")


class _Awaited(NamedTuple):
    answer: Answer
    asked: float
    script: Script | None
    rest: Sequence[Word]


class RedisPipeline:
    """The connection over which this router sends commands."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        pause: float,
        returned: Callable[[], None],
        logger: FilteringBoundLogger,
    ) -> None:
        """`timeout` is the time limit of a response in seconds, `pause` the seconds between a
        failure and the next attempt to connect. `returned` is called whenever Redis becomes
        available.

        Raises:
            ValueError: the URL is not one of a Redis server.
        """
        self.up = False
        self._timeout = timeout
        self._returned = returned
        self._logger = logger
        self._told_away = False
        self._tried = asyncio.Event()
        self._keeper = RedisConnection(url, self._use, self._lose, pause=pause, longest=pause)
        self._connection: Connected | None = None
        self._broken: asyncio.Future[None] | None = None
        self._out: list[bytes] = []
        self._filled = asyncio.Event()
        self._waiting: deque[_Awaited] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    async def start(self) -> None:
        """Connect. Returns once Redis is available or the first attempt has failed."""
        self._loop = asyncio.get_running_loop()
        self._keeper.start()
        await self._tried.wait()

    async def stop(self) -> None:
        """Wait for pending responses, up to the time limit of a response, and disconnect."""
        if self._waiting:
            await asyncio.wait([awaited.answer for awaited in self._waiting], timeout=self._timeout)
        await self._keeper.stop()
        self._forget()

    def run(self, script: Script, keys: Sequence[str], words: Sequence[Word]) -> Answer | None:
        """Run a script; None while Redis is unavailable."""
        return self._send(script, (len(keys), *keys, *words))

    def publish(self, channel: str, text: str) -> Answer | None:
        """Publish to all subscribers; None while Redis is unavailable."""
        return self._send(None, ("PUBLISH", channel, text))

    def _send(self, script: Script | None, rest: Sequence[Word]) -> Answer | None:
        if not self.up or len(self._waiting) >= _WAITING_MAX:
            return None
        answer: Answer = self._loop.create_future()
        self._put(_Awaited(answer, self._loop.time(), script, rest))
        return answer

    def _put(self, awaited: _Awaited, *, whole: bool = False) -> None:
        assert self._connection is not None
        script, rest = awaited.script, awaited.rest
        if script is None:
            packed = self._connection.pack_command(*rest)
        elif whole:
            packed = self._connection.pack_command("EVAL", script.text, *rest)
        else:
            packed = self._connection.pack_command("EVALSHA", script.digest, *rest)
        self._out += packed
        self._filled.set()
        self._waiting.append(awaited)
        if self._timer is None:
            self._look_in(self._timeout)

    async def _use(self, connection: Connected) -> None:
        async with asyncio.timeout(CONNECTING):
            await self._greet(connection)
        self._connection = connection
        self._broken = self._loop.create_future()
        self.up = True
        self._tried.set()
        if self._told_away:
            self._told_away = False
            self._logger.info("redis available again, limits are shared")
        self._returned()
        works = [spawn(work, joined) for work in (self._write(), self._read())]
        try:
            done, _ = await asyncio.wait(
                [*works, self._broken], return_when=asyncio.FIRST_COMPLETED
            )
            for each in done:
                each.result()
        finally:
            self._forget()
            for work in works:
                work.cancel()
            await asyncio.wait(works)

    async def _greet(self, connection: Connected) -> None:
        """Try every needed command: a Redis that is read-only or does not allow scripts counts as
        unavailable."""
        for script in (CHARGE, SETTLE, RENEW):
            await _ask(connection, "SCRIPT", "LOAD", script.text)
        await _ask(connection, "EVALSHA", CHARGE.digest, 1, "olla:{}|tried", *_TRIED)

    async def _write(self) -> None:
        assert self._connection is not None
        while True:
            await self._filled.wait()
            self._filled.clear()
            out, self._out = self._out, []
            await self._connection.send_packed_command(out, check_health=False)

    async def _read(self) -> None:
        assert self._connection is not None
        while True:
            try:
                answer = await self._connection.read_response()
            except NoScriptError:  # the server's script cache has been flushed
                if self._waiting:
                    self._put(self._waiting.popleft(), whole=True)
                continue
            except ResponseError as error:
                raise ConnectionError(str(error)) from None
            if not self._waiting:
                raise ConnectionError("an unexpected response")
            awaited = self._waiting.popleft()
            if not awaited.answer.done():
                awaited.answer.set_result(answer)

    def _look_in(self, seconds: float) -> None:
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """Check whether the oldest pending response is overdue."""
        self._timer = None
        if not self._waiting:
            return
        now = self._loop.time()
        left = self._waiting[0].asked + self._timeout - now
        if left > 0:
            self._look_in(left)
        elif now - self._due > self._timeout / 4:
            # The event loop was blocked: the response may have arrived, but has not been read.
            self._look_in(self._timeout / 4)
        elif self._broken is not None and not self._broken.done():
            self._broken.set_exception(TimeoutError(f"no answer within {self._timeout:g} s"))
            self._forget()

    def _lose(self, error: str) -> None:
        self._tried.set()
        if not self._told_away:
            self._told_away = True
            self._logger.warning("redis unavailable, using local limits", error=error)

    def _forget(self) -> None:
        """Fail all pending commands: Redis is unavailable."""
        self.up = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, deque()
        self._out = []
        for awaited in waiting:
            if not awaited.answer.done():
                awaited.answer.set_result(None)


async def _ask(connection: Connected, *words: Word) -> None:
    await connection.send_packed_command(connection.pack_command(*words), check_health=False)
    await connection.read_response()
