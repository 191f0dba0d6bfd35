"""Peers that misbehave all the while: a log reader that stalls, and clients with idle uploads."""

import asyncio
import os
import random
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["IdleUploads", "LogReader"]

_STALL_SECONDS = (2.0, 8.0)
_READ_BYTES = 65_536
_ANNOUNCED_BYTES = 100_000_000


class LogReader:
    """Copies the router's log from a pipe into a file, and reads nothing for seconds now and then.

    A thread, so that it stalls on its own. `write_end` is what the router writes to.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._read_end, self.write_end = os.pipe()
        self._path = path
        self._rng = random.Random(seed)
        self._ended = threading.Event()
        self._calm = threading.Event()
        self.stalls = 0
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def start(self) -> None:
        """Begin to read; the router has inherited the other end by now."""
        os.close(self.write_end)
        self._thread.start()

    def calm_down(self) -> None:
        """Stall no more, so that the last lines come."""
        self._calm.set()

    def join(self) -> None:
        """Wait until the router has closed its end and all was read."""
        self._calm.set()
        self._thread.join(10)

    def _copy(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while data := os.read(self._read_end, _READ_BYTES):
                file.write(data)
                if self._rng.random() < 0.05 and not self._calm.is_set():
                    self.stalls += 1
                    self._calm.wait(self._rng.uniform(*_STALL_SECONDS))
        os.close(self._read_end)


class IdleUploads:
    """Clients that announce long bodies and send a byte now and then, for as long as they may."""

    def __init__(self, base: str, count: int) -> None:
        place = urlsplit(base)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._count = count
        self.ended = 0
        """How many the router has put an end to."""

    async def run(self) -> None:
        """Go on until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._again_and_again())

    async def _again_and_again(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._dribble()
            await asyncio.sleep(0.5)

    async def _dribble(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(
                b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: %d\r\n\r\n{" % _ANNOUNCED_BYTES
            )
            answered = asyncio.ensure_future(reader.read(1))
            try:
                while not answered.done():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.wait([answered], timeout=1.0)
                self.ended += 1
            finally:
                answered.cancel()
                await asyncio.gather(answered, return_exceptions=True)
        finally:
            writer.close()
