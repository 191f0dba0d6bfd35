"""Lines leave from a thread: in order, in batches, within bounds, whoever reads them or not."""

import fcntl
import gc
import io
import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from olla.telemetry.log_writer import Log, LogWriter, descriptor_of, open_for_appending

SECONDS = 10.0
LINE = b"%05d " + b"x" * 93 + b"\n"
PIPE_BYTES = 4096


class Pipe:
    """A pipe of one page: full after forty lines."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.text = b""

    def until(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Read until what came is as wanted; returns all of it."""
        while not wanted(self.text):
            ready, _, _ = select.select([self.reading], [], [], SECONDS)
            assert ready, self.text[-300:]
            self.text += os.read(self.reading, 65536)
        return self.text

    def until_full(self) -> None:
        """Wait until whoever writes to it has to wait: a page has no room."""
        poll = select.poll()
        poll.register(self.writing, select.POLLOUT)
        while poll.poll(0):
            pass

    def close(self) -> None:
        """Nobody reads any more."""
        if self.reading >= 0:
            os.close(self.reading)
            self.reading = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe."""
    made = Pipe()
    yield made
    made.close()
    os.close(made.writing)


Make = Callable[..., tuple[LogWriter, Log]]


@pytest.fixture
def writer_to() -> Iterator[Make]:
    """Makes writers with a log each, and closes them in the end."""
    made: list[LogWriter] = []

    def make(descriptor: int, **options: object) -> tuple[LogWriter, Log]:
        writer = LogWriter(os.dup(descriptor), **options)  # type: ignore[arg-type]
        made.append(writer)
        return writer, writer.log("requests", notice)

    yield make
    for writer in made:
        writer.close(0.1)


def notice(lines: int) -> bytes:
    """The line that says how many are missing."""
    return b"%d lines missing\n" % lines


def test_lines_of_several_logs_and_threads_keep_their_order(tmp_path: Path) -> None:
    """What was put first is written first; each thread's lines stay in the order it put them."""
    path = tmp_path / "log"
    writer = LogWriter(open_for_appending(path))
    logs = [writer.log(name) for name in ("requests", "router")]
    for number in range(1000):
        logs[number % 2].put(b"main %d\n" % number, urgent=number % 7 == 0)

    def other(name: int) -> None:
        for number in range(1000):
            logs[name % 2].put(b"thread-%d %d\n" % (name, number))

    threads = [threading.Thread(target=other, args=(name,)) for name in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    writer.close(SECONDS)
    lines = path.read_text().splitlines()
    assert len(lines) == 4000
    assert writer.dropped == {"requests": 0, "router": 0}
    for name in ("main", "thread-0", "thread-1", "thread-2"):
        numbers = [int(line.split()[1]) for line in lines if line.split()[0] == name]
        assert numbers == list(range(1000))


def test_lines_wait_for_others_unless_one_is_urgent(pipe: Pipe, writer_to: Make) -> None:
    """A batch of its own for each line would wake the thread for each request."""
    _, log = writer_to(pipe.writing, flush_after=3600.0)
    for number in range(10):
        log.put(b"%d\n" % number)
    assert not select.select([pipe.reading], [], [], 0.05)[0]
    log.put(b"urgent\n", urgent=True)
    assert pipe.until(lambda text: b"urgent" in text).splitlines() == [
        *(b"%d" % number for number in range(10)),
        b"urgent",
    ]


def test_lines_leave_by_themselves_after_a_while(pipe: Pipe, writer_to: Make) -> None:
    """And a large batch at once."""
    _, log = writer_to(pipe.writing, flush_after=0.01)
    log.put(b"first\n")
    assert pipe.until(lambda text: text.endswith(b"\n")) == b"first\n"
    _, log = writer_to(pipe.writing, flush_after=3600.0, flush_bytes=100)
    log.put(LINE % 1)
    log.put(LINE % 2)
    pipe.until(lambda text: LINE % 2 in text)


def test_a_full_pipe_costs_lines_and_never_waits(pipe: Pipe, writer_to: Make) -> None:
    """What waits is bounded, the rest is counted; when somebody reads on, a notice stands where
    lines are missing, and all others are whole and in order."""
    writer, log = writer_to(pipe.writing, bytes_max=10_000)
    for number in range(5000):  # one page, a batch in the thread's hands, and a queue: the rest
        log.put(LINE % number)
    assert log.dropped >= 5000 - 2 * 10_000 // len(LINE) - PIPE_BYTES // len(LINE)
    early = log.dropped
    pipe.until(lambda text: text.endswith(b"lines missing\n"))
    log.put(LINE % 5000, urgent=True)
    lines = pipe.until(lambda text: text.endswith(LINE % 5000)).splitlines()
    told = [int(line.split()[0]) for line in lines if line.endswith(b"missing")]
    assert sum(told) == log.dropped == early
    assert lines[-2].endswith(b"missing")
    numbers = [int(line.split()[0]) for line in lines if not line.endswith(b"missing")]
    assert numbers == sorted(numbers)
    assert len(numbers) + sum(told) == 5001
    assert writer.flush(SECONDS)


def test_how_many_lines_wait_is_bounded_as_well(pipe: Pipe, writer_to: Make) -> None:
    """Of empty lines, a megabyte is a million objects."""
    _, log = writer_to(pipe.writing, lines_max=100)
    for _ in range(PIPE_BYTES):
        log.put(b"\n", urgent=True)
    pipe.until_full()
    for _ in range(1000):
        log.put(b"\n")
    assert log.dropped >= 800


def test_closing_ends_in_time_though_nobody_reads(pipe: Pipe, writer_to: Make) -> None:
    """What is left is dropped and counted, and the thread is gone."""
    writer, log = writer_to(pipe.writing)
    for number in range(1000):
        log.put(LINE % number)
    pipe.until_full()
    writer.close(0.2)
    assert writer._thread is not None
    assert not writer._thread.is_alive()
    log.put(b"late\n")
    written = 1001 - log.dropped
    assert 0 <= written <= PIPE_BYTES // len(LINE) + 1


def test_closing_writes_what_is_left_while_somebody_reads(pipe: Pipe, writer_to: Make) -> None:
    """However much that is, and a notice of what was lost before."""
    writer, log = writer_to(pipe.writing, flush_after=3600.0)
    log.lose(3)
    for number in range(1000):
        log.put(LINE % number)
    reading = threading.Thread(target=pipe.until, args=(lambda text: b"missing\n" in text,))
    reading.start()
    writer.close(SECONDS)
    reading.join()
    assert pipe.text.splitlines()[:-1] == [(LINE % number)[:-1] for number in range(1000)]
    assert pipe.text.endswith(b"3 lines missing\n")
    writer.close(SECONDS)


def test_a_reader_that_has_gone_is_told_of_once(pipe: Pipe, writer_to: Make) -> None:
    """Lines are counted, and nothing raises."""
    told: list[OSError] = []
    writer, log = writer_to(pipe.writing, failed=told.append)
    pipe.close()
    for number in range(3):
        log.put(LINE % number)
        assert writer.flush(SECONDS)
    assert log.dropped == 3
    assert [type(error) for error in told] == [BrokenPipeError]
    assert writer.failing


def test_a_disk_that_had_no_room_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line stays alone on its line, what was lost is told of, and the next loss again."""
    path = tmp_path / "log"
    told: list[OSError] = []
    writer = LogWriter(open_for_appending(path), failed=told.append)
    log = writer.log("requests", notice)
    room = [0]
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken = write(descriptor, bytes(data)[: room[0]])
        room[0] -= taken
        return taken

    for size in (150, 10**6, 0, 10**6):
        room[0] = size
        monkeypatch.setattr(os, "write", full)
        for number in range(4):
            log.put(LINE % number)
        assert writer.flush(SECONDS)
        monkeypatch.undo()
    writer.close(SECONDS)
    lines = path.read_bytes().splitlines()
    whole = [(LINE % number)[:-1] for number in range(4)]
    assert lines[:2] == [whole[0], whole[1][:50]]
    assert [line for line in lines if line.endswith(b"missing")] == [
        b"3 lines missing",
        b"4 lines missing",
    ]
    assert [line for line in lines[2:] if not line.endswith(b"missing")] == whole * 2
    assert len(told) == 2
    assert log.dropped == 7


def test_a_descriptor_that_does_not_block_is_no_different(pipe: Pipe, writer_to: Make) -> None:
    """A pipe may be shared with somebody who has set it so."""
    os.set_blocking(pipe.writing, False)
    writer, log = writer_to(pipe.writing)
    for number in range(500):
        log.put(LINE % number)
    assert pipe.until(lambda text: LINE % 499 in text).count(b"\n") == 500
    assert log.dropped == 0
    assert writer.flush(SECONDS)


def test_a_finalizer_may_log_while_a_line_is_put(tmp_path: Path) -> None:
    """The collector runs when it likes: a lock that is held already must not stop the router."""
    writer = LogWriter(open_for_appending(tmp_path / "log"))
    log = writer.log("router")

    class Finalized:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            log.put(b"finalized\n", urgent=True)

    with writer._lock:  # as within `put`
        Finalized()
        gc.collect()
        log.put(b"outer\n")
    writer.close(SECONDS)
    assert (tmp_path / "log").read_text() == "finalized\nouter\n"


def test_a_fifo_without_a_reader_is_opened_at_once(tmp_path: Path) -> None:
    """And keeps what is written for whoever comes."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = LogWriter(open_for_appending(fifo))
    log = writer.log("decisions")
    log.put(b"first\n", urgent=True)
    assert writer.flush(SECONDS)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 100) == b"first\n"
    for number in range(2000):
        log.put(LINE % number)
    assert select.select([reader], [], [], SECONDS)[0]
    assert os.read(reader, 100)
    os.close(reader)
    writer.close(0.1)
    assert log.dropped


def test_a_standard_output_that_is_not_there_takes_everything() -> None:
    """`olla serve >&-` has none; a stream in memory is a mistake, and said to be one."""
    descriptor = descriptor_of(None)
    assert os.write(descriptor, b"nothing\n")
    os.close(descriptor)
    with pytest.raises(OSError, match="fileno"):
        descriptor_of(io.StringIO())
