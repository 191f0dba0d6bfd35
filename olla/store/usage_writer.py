"""Records requests in the store, without any of them waiting for it.

A record is put into a list, and a task of its own makes rows and writes them, many at a time.
A store that does not take them stops no request: it is tried again until it does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.record import RequestRecord
from olla.store.usage import UsageRow, row_of
from olla.tasks import spawn

__all__ = ["UsageSink", "UsageStore", "UsageWriter", "Wait"]

_BACKLOG_BATCHES = 10
_BACK_OFF_MIN = 1.0
_BACK_OFF_MAX = 30.0
_FORGETTING_EVERY = 3600.0

Wait = Callable[[asyncio.Event, float], Awaitable[None]]
"""Waits for an event, but so many seconds at most."""


class UsageSink(Protocol):
    """Where rows go: `olla.store.usage.UsageTable`."""

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """Write rows: all of them or, when it raises, none."""
        ...

    async def forget(self, before: float) -> int:
        """Delete what ended before a time (Unix seconds); how many requests that were."""
        ...


class UsageStore(Protocol):
    """What has the rows: `olla.store.database.Store`."""

    @property
    def usage(self) -> UsageSink:
        """Where they go."""
        ...


class UsageWriter:
    """A sink that writes each record into the store.

    Records leave `interval` seconds after the last writing, or when `batch` have gathered. What
    came within `interval` is what a process that is killed loses at most, as long as the store
    takes what it is given. When it does not, the batch is kept and tried again after a second,
    two, four and so on up to thirty. `pending_max` records wait at most, and `content_max`
    characters of content (of Unicode: up to four bytes each); the newest that find no room are
    not recorded, and counted in `lost`. What ended more than `retention` seconds ago is deleted at
    the start and every hour.

    A batch is one transaction, so a row is written once; only of a connection that breaks while
    the database confirms is it not known whether the batch was kept, and it is written again.
    """

    def __init__(
        self,
        store: UsageStore,
        logger: FilteringBoundLogger,
        clock: Clock,
        *,
        retention: float | None = None,
        interval: float = 1.0,
        batch: int = 500,
        pending_max: int = 10_000,
        content_max: int = 33_554_432,
        wait: Wait | None = None,
    ) -> None:
        """`wait` is how it waits, for tests; `retention` None keeps everything."""
        self.written = 0
        """Records that are in the store."""
        self.lost = 0
        """Records that were not, and will not be."""
        self.failing: str | None = None
        """Why the store does not take records; None while it does."""
        self._usage = store.usage
        self._logger = logger
        self._clock = clock
        self._retention = retention
        self._interval = interval
        self._batch = batch
        self._room = pending_max
        self._content_room = content_max
        self._wait = wait or _wait
        self._pending: list[RequestRecord] = []
        self._lost_before = 0
        """What had been lost when the store began to fail."""
        self._back_off = _BACK_OFF_MIN
        self._writing = asyncio.Lock()
        self._due = asyncio.Event()
        """A batch is full, or it is the last."""
        self._again = asyncio.Event()
        """What failed is to be tried at once."""
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pending(self) -> int:
        """How many records wait to be written, those included that are being written."""
        return len(self._pending)

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished request."""
        pending = self._pending
        if len(pending) >= self._room:
            self.lost += 1
            return
        if record.content is not None:
            size = _size(record)
            if size > self._content_room:
                self.lost += 1
                return
            self._content_room -= size
        pending.append(record)
        if len(pending) >= self._batch:
            self._due.set()

    def start(self) -> None:
        """Begin to write, in the running loop."""
        self._tasks = [spawn(self._write_on())]
        if self._retention is not None:
            self._tasks.append(spawn(self._forget_on(self._retention)))

    async def stop(self, timeout: float) -> None:
        """Write what is left, in so many seconds at most; what comes later is lost.

        What could not be written by then is counted as lost, and the log says how many.
        """
        self._stopping = True
        self._room = 0
        self._back_off = _BACK_OFF_MIN
        self._due.set()
        self._again.set()
        for forgetting in self._tasks[1:]:
            forgetting.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._pending:
            self.lost += len(self._pending)
            self._logger.error(
                "usage lost at the end", requests=len(self._pending), reason=self.failing
            )
            self._pending.clear()

    async def leave(self) -> list[RequestRecord]:
        """End at once, writing nothing more; returns what waits to be written."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left, self._pending = self._pending, []
        return left

    async def flush(self) -> None:
        """Write what has gathered so far.

        Raises:
            StoreError: the store does not take it; it stays, and is tried again.
        """
        async with self._writing:
            left = len(self._pending)
            while left > 0:
                # A loop that is busy lets few transactions through: a backlog goes in few.
                left -= await self._write_batch(min(left, _BACKLOG_BATCHES * self._batch))

    async def _write_batch(self, size: int) -> int:
        records = self._pending[:size]
        try:
            await self._usage.add([row_of(record) for record in records])
        except Exception as error:  # whatever it was: recording goes on, and says what is wrong
            self._fail(str(error))
            raise
        # Only now: what is being written counts as pending, and stays when it fails.
        del self._pending[:size]
        self._content_room += sum(map(_size, records))
        self.written += size
        self._recover()
        return size

    async def _write_on(self) -> None:
        while True:
            if self.failing is None:
                await self._wait(self._due, self._interval)
            else:  # a full batch is no reason to ask sooner
                await self._wait(self._again, self._back_off)
                self._again.clear()
                self._back_off = min(self._back_off * 2, _BACK_OFF_MAX)
            self._due.clear()
            with suppress(Exception):  # `failing` has it
                await self.flush()
                if self._stopping:
                    return

    async def _forget_on(self, retention: float) -> None:
        while True:
            try:
                forgotten = await self._usage.forget(self._clock.wall() - retention)
            except Exception as error:
                self._logger.warning("old usage not deleted", reason=str(error))
            else:
                if forgotten:
                    self._logger.info("old usage deleted", requests=forgotten)
            await self._wait(asyncio.Event(), _FORGETTING_EVERY)

    def _fail(self, reason: str) -> None:
        if self.failing is None:
            self._lost_before = self.lost
            self._back_off = _BACK_OFF_MIN
            self._logger.error("usage cannot be written", reason=reason, pending=self.pending)
        self.failing = reason

    def _recover(self) -> None:
        if self.failing is not None:
            self.failing = None
            self._logger.info("usage is written again", lost=self.lost - self._lost_before)


def _size(record: RequestRecord) -> int:
    content = record.content
    return 0 if content is None else len(content[0]) + len(content[1])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
