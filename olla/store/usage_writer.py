"""Record requests in the store without delaying them.

Records are appended to a list. A task converts them to rows and writes them in batches. If the
store fails, the task retries until it succeeds; requests continue.
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
"""Waits for an event, with a time limit in seconds."""


class UsageSink(Protocol):
    """The target of rows: `olla.store.usage.UsageTable`."""

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """Write all rows, or none if it raises."""
        ...

    async def forget(self, before: float) -> int:
        """Delete requests that ended before a time (Unix seconds), and return their number."""
        ...


class UsageStore(Protocol):
    """The owner of the rows: `olla.store.database.Store`."""

    @property
    def usage(self) -> UsageSink:
        """The target of rows."""
        ...


class UsageWriter:
    """A sink that writes each record to the store.

    Records are written `interval` seconds after the previous write, or as soon as `batch` are
    pending. A killed process therefore loses at most the records of one `interval`, as long as the
    store works. If a write fails, the batch is kept and retried after one second, two, four, and so
    on up to thirty. At most `pending_max` records and `content_max` characters of content (of
    Unicode: up to four bytes each) wait; newer records are dropped and counted in `lost`. Requests
    that ended more than `retention` seconds ago are deleted at the start and every hour.

    A batch is one transaction, so a row is written once. If the connection breaks during the
    commit, the outcome is unknown, and the batch is written again.
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
        """`wait`: how to wait, for tests; `retention`: None keeps all rows."""
        self.written = 0
        """Records written to the store."""
        self.lost = 0
        """Records dropped for good."""
        self.failing: str | None = None
        """Why the store rejects records; None while it works."""
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
        """The value of `lost` when the store began to fail."""
        self._back_off = _BACK_OFF_MIN
        self._writing = asyncio.Lock()
        self._due = asyncio.Event()
        """Set if a batch is full, or at the last write."""
        self._again = asyncio.Event()
        """Set to retry a failed batch at once."""
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pending(self) -> int:
        """The number of pending records, including those being written."""
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
        """Start to write, in the running loop."""
        self._tasks = [spawn(self._write_on())]
        if self._retention is not None:
            self._tasks.append(spawn(self._forget_on(self._retention)))

    async def stop(self, timeout: float) -> None:
        """Write pending records within a time limit in seconds. Later records are lost.

        Records that could not be written are counted as lost and logged.
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
        """Stop at once without writing, and return the pending records."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left, self._pending = self._pending, []
        return left

    async def flush(self) -> None:
        """Write the pending records.

        Raises:
            StoreError: the store failed. The records are kept and retried.
        """
        async with self._writing:
            left = len(self._pending)
            while left > 0:
                # A busy loop completes few transactions: a backlog is written in few large ones.
                left -= await self._write_batch(min(left, _BACKLOG_BATCHES * self._batch))

    async def _write_batch(self, size: int) -> int:
        records = self._pending[:size]
        try:
            await self._usage.add([row_of(record) for record in records])
        except Exception as error:  # recording continues after any error, and reports it
            self._fail(str(error))
            raise
        # Records count as pending until they are written.
        del self._pending[:size]
        self._content_room += sum(map(_size, records))
        self.written += size
        self._recover()
        return size

    async def _write_on(self) -> None:
        while True:
            if self.failing is None:
                await self._wait(self._due, self._interval)
            else:  # a full batch must not shorten the pause
                await self._wait(self._again, self._back_off)
                self._again.clear()
                self._back_off = min(self._back_off * 2, _BACK_OFF_MAX)
            self._due.clear()
            with suppress(Exception):  # `failing` stores the error
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
