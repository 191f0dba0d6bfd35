"""Write log lines in a thread, so that a stalled reader of a log cannot stop the router.

A pipe whose reader stalls, a terminal paused with Ctrl-S and a disk that does not answer block the
writer. The event loop therefore only appends lines to a queue, which is bounded in lines and bytes,
and a thread writes them in batches. Lines that do not fit are dropped and counted, and a notice
reports how many are missing as soon as the log moves again. The content of lines is not defined
here.
"""

import errno
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import IO

from olla.clock import Clock, SystemClock

__all__ = ["Log", "LogWriter", "descriptor_of", "open_for_appending"]

_FLUSH_AFTER = 0.2
"""Seconds that the first line of a batch waits for others."""
_FLUSH_BYTES = 65_536
"""Bytes. A batch of this size is written at once."""
_BYTES_MAX = 1_048_576
_LINES_MAX = 10_000
"""Limits of the queue. The thread may hold as much again."""
_PIECE_BYTES = 4096
"""Bytes per write. A pipe that is ready takes this much at once and as a whole (PIPE_BUF). The
thread thus waits in `poll`, where it can be woken, and lines of several processes do not mix."""
_POLL_MS = 100
_GRACE = 0.5
"""Seconds beyond the time limit in which the thread may notice the end."""


_LINE_END = 10


class Log:
    """One log's access to a writer."""

    def __init__(
        self, writer: "LogWriter", name: str, notice: Callable[[int], bytes] | None
    ) -> None:
        self.name = name
        self.dropped = 0
        """Lines that were dropped or could not be written."""
        self.untold = 0
        """Those that no notice has reported yet."""
        self.notice = notice
        self._writer = writer

    def put(self, line: bytes, *, urgent: bool = False) -> None:
        """Queue a line, which ends with a line end. Urgent lines are written at once. Does not
        wait, and may be called in any thread, in signal handlers and in finalizers."""
        self._writer.put(self, line, urgent)

    def lose(self, lines: int) -> None:
        """Count lines that will not be written."""
        self.dropped += lines
        self.untold += lines


_Entry = tuple[Log, bytes, int]
"""A line of a log; for a notice, the number of missing lines that it reports."""


class LogWriter:
    """Writes the lines of several logs to one descriptor, in order.

    A line is written `flush_after` seconds after the first of its batch, or at once if
    `flush_bytes` are queued or a line is urgent. At most `bytes_max` bytes and `lines_max` lines
    wait. A write that fails loses the lines of its batch; the next write is attempted as usual.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        failed: Callable[[OSError], None] = lambda _: None,
        clock: Clock | None = None,
        flush_after: float = _FLUSH_AFTER,
        flush_bytes: int = _FLUSH_BYTES,
        bytes_max: int = _BYTES_MAX,
        lines_max: int = _LINES_MAX,
    ) -> None:
        """Owns the descriptor and closes it at the end. `failed` is called in the writer's thread
        with the error of a write, once until writes succeed again."""
        self._descriptor = descriptor
        self._failed = failed
        self._clock = clock or SystemClock()
        self._flush_after = flush_after
        self._flush_bytes = flush_bytes
        self._bytes_max = bytes_max
        self._lines_max = lines_max
        # Reentrant: a finalizer may log while a line is queued.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._logs: list[Log] = []
        self._lines: list[tuple[Log, bytes]] = []
        self._bytes = 0
        self._urgent = False
        self._taken = 0
        """Lines queued so far."""
        self._done = 0
        """Lines written or lost so far."""
        self._writing = False
        self._closed = False
        self._deadline = 0.0
        """When to give up after `close`."""
        self._failing = False
        self._sent = 0
        """Written bytes of the last piece."""
        self._broken_off = False
        """The last write ended in the middle of a line."""
        self._thread: threading.Thread | None = None

    def log(self, name: str, notice: Callable[[int], bytes] | None = None) -> Log:
        """Return a log that writes here. `notice` formats the line that reports missing lines. It
        is called in the writer's thread, and may return no bytes."""
        made = Log(self, name, notice)
        with self._lock:
            self._logs.append(made)
        return made

    @property
    def dropped(self) -> dict[str, int]:
        """Return the dropped lines of each log."""
        return {each.name: each.dropped for each in self._logs}

    @property
    def failing(self) -> bool:
        """Whether the last write failed."""
        return self._failing

    def put(self, log: Log, line: bytes, urgent: bool) -> None:
        """See `Log.put`."""
        size = len(line)
        with self._lock:
            waiting = self._bytes
            if (
                self._closed
                or waiting + size > self._bytes_max
                or len(self._lines) >= self._lines_max
            ):
                log.lose(1)
                return
            self._lines.append((log, line))
            self._bytes = waiting + size
            self._taken += 1
            urgent = urgent or waiting + size >= self._flush_bytes
            if urgent and not self._urgent:
                self._urgent = True
                self._changed.notify_all()
            elif not waiting:
                self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
                self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all lines queued so far are written or lost and reported, up to `timeout`
        seconds, and return whether they are. Blocks."""

        def done() -> bool:
            return self._done >= wanted and not (self._writing or self._owed())

        with self._changed:
            wanted = self._taken
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(done, timeout)

    def close(self, timeout: float) -> None:
        """Write the remaining lines, up to `timeout` seconds. Later lines are dropped. Blocks."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._deadline = self._clock.now() + timeout
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout + _GRACE)
            if self._thread.is_alive():  # in a write that does not return: it ends with the process
                return
        os.close(self._descriptor)

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._write(batch)
            with self._changed:
                self._done += sum(not told for _, _, told in batch)
                self._writing = False
                self._changed.notify_all()

    def _next(self) -> list[_Entry] | None:
        """Return the next batch; None at the end."""
        with self._changed:
            while not (self._lines or self._owed() or self._closed):
                self._changed.wait()
            if self._lines and not (self._urgent or self._closed):
                self._changed.wait(self._flush_after)
            batch = [(log, line, 0) for log, line in self._lines]
            self._lines = []
            self._bytes = 0
            self._urgent = False
            # A notice follows the lines that filled the queue, where the others are missing.
            for log in self._owed():
                told, log.untold = log.untold, 0
                if log.notice is not None:
                    batch.append((log, log.notice(told), told))
            self._writing = bool(batch)
            return None if self._closed and not batch else batch

    def _owed(self) -> list[Log]:
        """Return the logs with missing lines, once the log moves again."""
        if self._failing:
            return []
        return [each for each in self._logs if each.untold and each.notice is not None]

    def _write(self, batch: list[_Entry]) -> None:
        begin = 0
        while begin < len(batch):
            end, size = begin + 1, len(batch[begin][1])
            while end < len(batch) and size + len(batch[end][1]) <= _PIECE_BYTES:
                size += len(batch[end][1])
                end += 1
            try:
                self._send(b"".join(line for _, line, _ in batch[begin:end]))
            except OSError as error:
                while begin < end and self._sent >= len(batch[begin][1]):
                    self._sent -= len(batch[begin][1])
                    begin += 1
                self._lost(batch[begin:], error)
                return
            begin = end
        self._failing = False

    def _send(self, piece: bytes) -> None:
        """Write a piece.

        Raises:
            OSError: the write failed after `_sent` bytes.
        """
        self._sent = 0
        if self._broken_off:
            piece = b"\n" + piece
            self._sent = -1
        data = memoryview(piece)
        while data:
            self._await_room()
            try:
                sent = os.write(self._descriptor, data[:_PIECE_BYTES])
            except BlockingIOError:  # another process has filled it since the poll
                sleep(_POLL_MS / 1000)
                continue
            self._sent += sent
            self._broken_off = data[sent - 1] != _LINE_END
            data = data[sent:]

    def _await_room(self) -> None:
        """Raises OSError: the time limit is over, and the descriptor accepts nothing."""
        while True:
            if self._closed and self._clock.now() >= self._deadline:
                raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")
            if _ready(self._descriptor, _POLL_MS):
                return

    def _lost(self, batch: list[_Entry], error: OSError) -> None:
        with self._lock:
            for log, _, told in batch:
                if told:
                    log.untold += told
                else:
                    log.lose(1)
        failing, self._failing = self._failing, True
        if not failing and not isinstance(error, TimeoutError):
            self._failed(error)


def descriptor_of(stream: IO[str] | None) -> int:
    """Return a new descriptor for the target of a stream. A standard stream that the process was
    started without (None) discards everything.

    Raises:
        OSError: the stream has no descriptor, such as one in memory.
        ValueError: it is closed.
    """
    if stream is None:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    stream.flush()
    return os.dup(stream.fileno())


def open_for_appending(path: Path) -> int:
    """Return a descriptor that appends to a file, which is created if missing. Opening a FIFO does
    not wait for a reader.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, os.O_WRONLY | flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    # A FIFO without a reader. Opened for both directions, it keeps the data for the next reader.
    return os.open(path, os.O_RDWR | flags, 0o666)


def _ready(descriptor: int, timeout_ms: int) -> bool:
    """Whether a write would not block. A descriptor on which a write would fail counts as ready."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_ms))
