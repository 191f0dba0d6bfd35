"""Peers that misbehave during the whole run: a log reader that stalls, and clients with idle
uploads."""

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
    """Copies the router's log from a pipe to a file, and stalls for seconds now and then.

    It runs in a thread, so that it stalls independently. The router writes to `write_end`.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._read_end, self.write_end = os.pipe()
        self._path = path
        self._rng = random.Random(seed)
        self._ended = threading.Event()
        self._no_stalls = threading.Event()
        self.stalls = 0
        self._thread = threading.Thread(target=self._copy, daemon=True)

    def start(self) -> None:
        """Start reading; the router has inherited the other end by now."""
        os.close(self.write_end)
        self._thread.start()

    def stop_stalling(self) -> None:
        """Stop stalling, so that the last lines are read."""
        self._no_stalls.set()

    def join(self) -> None:
        """Wait until the router has closed its end and everything is read."""
        self._no_stalls.set()
        self._thread.join(10)

    def _copy(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while data := os.read(self._read_end, _READ_BYTES):
                file.write(data)
                if self._rng.random() < 0.05 and not self._no_stalls.is_set():
                    self.stalls += 1
                    self._no_stalls.wait(self._rng.uniform(*_STALL_SECONDS))
        os.close(self._read_end)


class IdleUploads:
    """Clients that announce long bodies and send a byte per second until the router ends the
    upload."""

    def __init__(self, base: str, count: int) -> None:
        place = urlsplit(base)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._count = count
        self.ended = 0
        """Uploads that the router has ended."""

    async def run(self) -> None:
        """Run until canceled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._count):
                group.create_task(self._repeat())

    async def _repeat(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._upload()
            await asyncio.sleep(0.5)

    async def _upload(self) -> None:
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
