"""Requests are recorded, whatever the store does."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture

from olla.store import StoreError
from olla.store.database import Store
from olla.store.usage import UsageRow
from olla.store.usage_writer import UsageWriter
from tests.probing.logs import capturing_logger
from tests.store.cluster import Cluster
from tests.store.conftest import Open
from tests.telemetry.samples import record


class Waits:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._over = asyncio.Event()
        self._begun: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self, event: asyncio.Event, seconds: float) -> None:
        self.asked.append(seconds)
        self._begun.put_nowait(None)
        tasks = [asyncio.ensure_future(each.wait()) for each in (event, self._over)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def begun(self, waits: int = 1) -> None:
        """So many more waits have begun."""
        for _ in range(waits):
            await self._begun.get()

    async def pass_by(self, waits: int = 1) -> None:
        """Let the waits of now be over, and what follows happen up to the next ones."""
        over, self._over = self._over, asyncio.Event()
        over.set()
        await self.begun(waits)


class Table:
    """A table that takes rows, or does not."""

    def __init__(self) -> None:
        self.rows: list[UsageRow] = []
        self.batches: list[int] = []
        self.broken: str | None = None
        self.forgotten: list[float] = []
        self.hold = asyncio.Event()
        self.hold.set()

    @property
    def usage(self) -> "Table":
        return self

    async def add(self, rows: Sequence[UsageRow]) -> None:
        await self.hold.wait()
        if self.broken is not None:
            raise StoreError(self.broken)
        self.rows += rows
        self.batches.append(len(rows))

    async def forget(self, before: float) -> int:
        self.forgotten.append(before)
        if self.broken is not None:
            raise StoreError(self.broken)
        return 3


class Clock:
    """A clock that stands still."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 10_000.0


class Bench:
    """A recording with everything it touches in the test's hand."""

    def __init__(self) -> None:
        self.table = Table()
        self.waits = Waits()
        self.log = LogCapture()

    def usage_writer(self, store: Any = None, **more: Any) -> UsageWriter:
        return UsageWriter(
            store or self.table, capturing_logger(self.log), Clock(), wait=self.waits, **more
        )

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log.entries]


@pytest.fixture
async def bench() -> Bench:
    """See `Bench`."""
    return Bench()


def take(usage_writer: UsageWriter, count: int, **more: Any) -> None:
    """Hand it so many records."""
    for _ in range(count):
        usage_writer(record(**more))


async def test_records_are_written_after_the_interval(bench: Bench) -> None:
    """All that have come, together."""
    usage_writer = bench.usage_writer()
    usage_writer.start()
    take(usage_writer, 3)
    assert (usage_writer.pending, usage_writer.written) == (3, 0)
    await bench.waits.begun()
    await bench.waits.pass_by()
    assert (usage_writer.pending, usage_writer.written, bench.table.batches) == (0, 3, [3])
    assert bench.waits.asked == [1.0, 1.0]
    await usage_writer.stop(5.0)


async def test_a_full_batch_does_not_wait(bench: Bench) -> None:
    """And a backlog goes in few transactions, of ten batches at most."""
    usage_writer = bench.usage_writer(batch=4)
    usage_writer.start()
    await bench.waits.begun()
    take(usage_writer, 42)
    await bench.waits.begun()
    assert bench.table.batches == [40, 2]
    await usage_writer.stop(5.0)


async def test_what_comes_while_writing_is_written_next(bench: Bench) -> None:
    """What is being written counts as pending until it is there."""
    usage_writer = bench.usage_writer()
    bench.table.hold.clear()
    take(usage_writer, 2)
    flushing = asyncio.create_task(usage_writer.flush())
    await asyncio.sleep(0)
    take(usage_writer, 1)
    assert usage_writer.pending == 3
    bench.table.hold.set()
    await flushing
    assert (usage_writer.pending, usage_writer.written) == (1, 2)
    await usage_writer.flush()
    assert bench.table.batches == [2, 1]


async def test_memory_is_bounded_and_losses_are_counted(bench: Bench) -> None:
    """The newest are not recorded when there is no room."""
    usage_writer = bench.usage_writer(pending_max=3)
    for number in range(5):
        usage_writer(record(id=str(number)))
    assert (usage_writer.pending, usage_writer.lost) == (3, 2)
    await usage_writer.flush()
    assert [row.request_id for row in bench.table.rows] == ["0", "1", "2"]
    take(usage_writer, 1)
    assert usage_writer.pending == 1


async def test_content_has_its_own_bound(bench: Bench) -> None:
    """Few long texts take as much room as many records."""
    usage_writer = bench.usage_writer(content_max=10)
    take(usage_writer, 3, content=("1234", "5"))
    take(usage_writer, 1)
    assert (usage_writer.pending, usage_writer.lost) == (3, 1)
    await usage_writer.flush()
    take(usage_writer, 2, content=("1234", "5"))
    assert (usage_writer.pending, usage_writer.lost) == (2, 1)


async def test_a_failing_store_is_tried_again_ever_more_seldom(bench: Bench) -> None:
    """What failed is kept, and everybody can see that it does; the log says it once."""
    usage_writer = bench.usage_writer(pending_max=5, batch=4)
    bench.table.broken = "no room"
    usage_writer.start()
    take(usage_writer, 3)
    await bench.waits.begun()
    for _ in range(8):
        await bench.waits.pass_by()
        assert usage_writer.failing == "no room"
    assert bench.waits.asked == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    take(usage_writer, 4)
    assert (usage_writer.pending, usage_writer.lost, usage_writer.written) == (5, 2, 0)
    bench.table.broken = None
    await bench.waits.pass_by()
    assert (usage_writer.failing, usage_writer.pending, usage_writer.written) == (None, 0, 5)
    assert bench.table.batches == [5]
    assert bench.events == ["usage cannot be written", "usage is written again"]
    assert bench.log.entries[1]["lost"] == 2
    bench.table.broken = "again"
    take(usage_writer, 1)
    await bench.waits.pass_by()
    assert bench.waits.asked[-2:] == [1.0, 1.0]
    bench.table.broken = None
    await usage_writer.stop(5.0)
    assert len(bench.table.rows) == 6


async def test_stopping_writes_what_is_left(bench: Bench) -> None:
    """What comes later is counted as lost."""
    usage_writer = bench.usage_writer()
    usage_writer.start()
    take(usage_writer, 3)
    await usage_writer.stop(5.0)
    assert (usage_writer.written, usage_writer.pending, bench.events) == (3, 0, [])
    take(usage_writer, 1)
    assert usage_writer.lost == 1


async def test_stopping_ends_in_time(bench: Bench) -> None:
    """Whether the store refuses or does not answer; the log says what is lost."""
    for broken in (True, False):
        usage_writer = bench.usage_writer()
        bench.table.broken = "gone" if broken else None
        if not broken:
            bench.table.hold.clear()
        usage_writer.start()
        take(usage_writer, 3)
        await usage_writer.stop(0.01)
        assert (usage_writer.lost, usage_writer.pending) == (3, 0)
    assert bench.events.count("usage lost at the end") == 2


async def test_what_is_old_is_deleted_hourly(bench: Bench) -> None:
    """Also after a time at which that did not work."""
    bench.table.broken = "no"
    usage_writer = bench.usage_writer(retention=4_000.0)
    usage_writer.start()
    await bench.waits.begun(2)
    bench.table.broken = None
    await bench.waits.pass_by(2)
    assert 3600.0 in bench.waits.asked
    assert bench.table.forgotten == [6_000.0, 6_000.0]
    assert bench.events == ["old usage not deleted", "old usage deleted"]
    await usage_writer.stop(5.0)


async def test_records_come_into_a_real_store(bench: Bench, store: Store) -> None:
    """One row each, with what was told to be kept."""
    usage_writer = bench.usage_writer(store, batch=7)
    usage_writer.start()
    take(usage_writer, 20, caller="key:1")
    take(usage_writer, 1, id="kept", content=("question", "answer"))
    await usage_writer.stop(10.0)
    assert await store.usage.total() == 21 == usage_writer.written
    assert await store.usage.content("kept") == ("question", "answer")


async def test_nothing_is_lost_while_a_server_is_started_anew(
    bench: Bench, cluster: Cluster, postgres_url: str, opened: Open
) -> None:
    """What was recorded meanwhile is there afterwards, once."""
    store = await opened(postgres_url)
    usage_writer = bench.usage_writer(store)
    usage_writer.start()
    take(usage_writer, 10)
    await bench.waits.begun()
    await bench.waits.pass_by()
    assert usage_writer.written == 10
    cluster.stop()
    try:
        take(usage_writer, 700)
        await bench.waits.pass_by()
        assert usage_writer.failing is not None
        assert "cannot be reached" in usage_writer.failing
        assert usage_writer.pending == 700
    finally:
        cluster.start()
    await bench.waits.pass_by()
    assert (usage_writer.failing, usage_writer.lost, usage_writer.pending) == (None, 0, 0)
    assert await store.usage.total() == 710 == usage_writer.written
    await usage_writer.stop(5.0)


RECORDING = """
import asyncio, sys
import structlog
from olla.clock import SystemClock
from olla.store.database import Store
from olla.store.usage_writer import UsageWriter
from tests.telemetry.samples import record

async def main():
    store = await Store.open(sys.argv[1])
    recording = UsageWriter(store, structlog.get_logger(), SystemClock())
    while True:
        for _ in range(200):
            recording(record())
        await recording.flush()
        print(recording.written, flush=True)

asyncio.run(main())
"""


async def test_a_killed_process_leaves_a_sound_file(tmp_path: Path, sqlite_url: str) -> None:
    """It opens, and everything is there that was said to be written."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RECORDING, sqlite_url), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    written = 0
    while written < 2000:
        written = int(await process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = (await process.communicate())[0].splitlines()
    written = int(rest[-1]) if rest else written
    store = await Store.open(sqlite_url)
    try:
        assert written <= await store.usage.total() <= written + 200
    finally:
        await store.close()
    connection = sqlite3.connect(tmp_path / "store" / "olla.db")
    checked = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    assert checked == [("ok",)]
