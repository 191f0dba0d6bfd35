"""The request log: one line a request, in batches, bounded, nothing secret."""

import asyncio
import io
import json
import os

import pytest

from olla.failures import Failure, Kind
from olla.record import AttemptRecord
from olla.telemetry.request_log import JsonLines, LogFormat, RequestLog, text_line
from tests.telemetry.conftest import Timers
from tests.telemetry.samples import record


class Stream(io.StringIO):
    """A text stream that counts writes, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        self.writes += 1
        if self.error is not None:
            raise self.error
        return super().write(text)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


class Binary:
    """A binary layer that takes `room` bytes and then no more for now."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""

    def write(self, data: bytes) -> int:
        taken = data[: self.room]
        self.taken += taken
        self.room -= len(taken)
        if len(taken) < len(data):
            error = BlockingIOError()
            error.characters_written = len(taken)
            raise error
        return len(taken)

    def flush(self) -> None:
        if not self.room:
            raise BlockingIOError


class Slow(io.StringIO):
    """A text stream over such a layer."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.buffer = Binary(room)


def test_lines_of_a_batch_leave_in_one_write(timers: Timers) -> None:
    """Many requests within 200 ms are one write; nothing is written before."""
    stream = Stream()
    log = RequestLog(stream, schedule=timers)
    for number in range(50):
        log(record(id=f"r-{number}"))
    assert stream.writes == 0
    assert [call.after for call in timers.waiting] == [0.2]
    timers.fire()
    assert stream.writes == 1
    assert [line["id"] for line in stream.lines] == [f"r-{number}" for number in range(50)]
    assert not timers.waiting


def test_a_large_batch_does_not_wait(timers: Timers) -> None:
    """A batch that has grown large leaves at once."""
    stream = Stream()
    log = RequestLog(stream, schedule=timers, flush_bytes=1000)
    for _ in range(4):
        log(record())
    assert stream.writes == 1


def test_closing_writes_what_is_left(timers: Timers) -> None:
    """The last lines are not lost when the router stops, and no timer stays."""
    stream = Stream()
    log = RequestLog(stream, schedule=timers)
    log(record())
    log.close()
    assert len(stream.lines) == 1
    assert not timers.waiting
    log(record())
    assert log.dropped == 1


async def test_timers_are_the_running_loops() -> None:
    """In a running loop lines leave by themselves."""
    written = asyncio.Event()

    class Telling(Stream):
        def flush(self) -> None:
            written.set()

    stream = Telling()
    log = RequestLog(stream, flush_after=0.001)
    log(record())
    await written.wait()
    assert len(stream.lines) == 1


def test_what_cannot_be_written_is_counted_and_told_of(timers: Timers) -> None:
    """A failing stream loses lines, never a request; how many were lost is logged afterwards."""
    stream = Stream()
    log = RequestLog(stream, schedule=timers)
    stream.error = OSError(28, "No space left on device")
    for _ in range(3):
        log(record())
    timers.fire()
    log(record())
    timers.fire()
    assert log.dropped == 4
    stream.error = None
    log(record(id="after"))
    timers.fire()
    assert [line.get("id", line.get("lines")) for line in stream.lines] == ["after", 4]
    log(record(id="later"))
    timers.fire()
    assert len(stream.lines) == 3


def test_a_closed_stream_is_no_error(timers: Timers) -> None:
    """Requests go on when the log's stream is gone."""
    stream = io.StringIO()
    stream.close()
    log = RequestLog(stream, schedule=timers)
    log(record())
    timers.fire()
    assert log.dropped == 1


def test_what_a_slow_stream_leaves_goes_later_byte_for_byte(timers: Timers) -> None:
    """A stream that takes half a line gets the other half next, and nothing twice."""
    records = [record(id=f"r-{number}") for number in range(3)]
    expected = b"".join(JsonLines().line(each) for each in records)
    stream = Slow(room=len(expected) // 2)
    log = RequestLog(stream, schedule=timers)
    for each in records:
        log(each)
    timers.fire()
    assert stream.buffer.taken == expected[: len(expected) // 2]
    stream.buffer.room = 10_000
    timers.fire()
    assert stream.buffer.taken == expected
    assert log.dropped == 0


def test_a_stuck_stream_does_not_eat_memory(timers: Timers) -> None:
    """Pending lines are bounded; the rest is dropped, counted and told of once it moves again."""
    stream = Slow(room=0)
    log = RequestLog(stream, schedule=timers, flush_bytes=2000, pending_bytes_max=5000)
    for _ in range(1000):
        log(record())
        assert log._pending_bytes <= 5000
    assert log.dropped > 900
    timers.fire()
    stream.buffer.room = 10**6
    timers.fire()
    lines = [json.loads(line) for line in stream.buffer.taken.splitlines()]
    assert lines[-1]["lines"] == log.dropped
    assert len(lines) - 1 + log.dropped == 1000


def test_a_full_pipe_does_not_block(timers: Timers) -> None:
    """A reader that stopped reading holds nothing up where the descriptor is non-blocking."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with open(write_end, "w") as stream, open(read_end, "rb") as reader:
        log = RequestLog(stream, schedule=timers, pending_bytes_max=300_000)
        for number in range(2000):
            log(record(id=f"r-{number}"))
        timers.fire()
        os.set_blocking(read_end, False)
        got = b""
        for _ in range(50):
            got += reader.read() or b""
            timers.fire()
        log.close()
        stream.flush()
        got += reader.read() or b""
    lines = [json.loads(line) for line in got.splitlines()]
    told = sum(line["lines"] for line in lines if line.get("event") == "request_log_dropped")
    assert told == log.dropped
    assert len([line for line in lines if "id" in line]) + told == 2000


def test_a_line_has_all_that_happened() -> None:
    """Every fact of the record that an operator looks for is a field."""
    failure = Failure(Kind.BODY_RESET, "reset", endpoint="gpu-1")
    attempts = [AttemptRecord("gpu-2", "", 1.0), AttemptRecord("gpu-1", "", 1.0)]
    more = {"queue_seconds": 0.05, "predicted": 0.2, "rewritten": "num_ctx 5 -> 8"}
    line = json.loads(JsonLines().line(record(failure=failure, attempts=attempts, **more)))
    assert line == {
        "ts": "2023-11-14T22:13:20.250000Z",
        "id": "r-1",
        "client": "192.0.2.7",
        "caller": "",
        "method": "POST",
        "path": "/api/chat",
        "dialect": "ollama",
        "operation": "chat",
        "model": "llama3",
        "stream": True,
        "endpoint": "gpu-1",
        "status": 200,
        "reason": "model_loaded",
        "attempts": 2,
        "ttfb_ms": 250.0,
        "duration_ms": 2500.0,
        "bytes_in": 40,
        "bytes_out": 4000,
        "prompt_tokens": 12,
        "output_tokens": 80,
        "queue_ms": 50.0,
        "predicted_ms": 200.0,
        "rewritten": "num_ctx 5 -> 8",
        "failure": "body_reset",
        "error": "reset",
    }


@pytest.mark.parametrize("line", [JsonLines().line, text_line])
def test_query_strings_are_left_out(line) -> None:  # type: ignore[no-untyped-def]
    """A key in a query string does not get into the log, nor one before a host."""
    assert b"secret" not in line(record(path="/api/tags?key=secret", model=None))
    assert b"secret" not in line(record(path="http://ann:secret@host/x?secret", model=None))


@pytest.mark.parametrize("line", [JsonLines().line, text_line])
def test_clients_cannot_forge_lines(line) -> None:  # type: ignore[no-untyped-def]
    """Line ends, control characters and endless names stay within one short line."""
    written = line(record(model="m\n200 forged\x1b[31m" + "x" * 100_000, id="i\r\nd"))
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert b"\x1b" not in written
    assert len(written) < 1500


@pytest.mark.parametrize("line", [JsonLines().line, text_line])
def test_bytes_that_are_no_text_do_not_break_the_log(line) -> None:  # type: ignore[no-untyped-def]
    """A path with undecodable bytes is written with replacements."""
    written = line(record(path="/api/\udcff\ud800", model=None))
    assert written.endswith(b"\n")
    written.decode()


def test_text_lines_align() -> None:
    """For people, columns stand below each other."""
    first = text_line(record()).decode()
    second = text_line(record(status=502, endpoint=None, first_byte=None, model="mistral")).decode()
    assert first.index("llama3") == second.index("mistral")
    assert first.startswith("22:13:20 200 chat ")
    assert "12>80" in first


def test_text_logs_tell_of_drops_too(timers: Timers) -> None:
    """The line about dropped lines has the format of the log."""
    stream = Stream()
    log = RequestLog(stream, LogFormat.TEXT, schedule=timers)
    stream.error = OSError()
    log(record())
    timers.fire()
    stream.error = None
    log(record())
    timers.fire()
    assert "1 lines of the request log dropped" in stream.getvalue()


def test_a_request_that_was_tried_again_tells_what_failed_first() -> None:
    """And one that went well at once has neither."""
    attempts = [
        AttemptRecord("gpu-1", "", 0.0, failure=Failure(Kind.UPSTREAM_BUSY, "busy")),
        AttemptRecord("gpu-2", "", 0.1),
    ]
    line = json.loads(JsonLines().line(record(attempts=attempts)))
    assert line["failed"] == ["gpu-1: upstream_busy"]
    assert line["failure"] is None
    line = json.loads(JsonLines().line(record()))
    assert "failed" not in line
    assert "error" not in line


def test_estimated_counts_are_marked() -> None:
    """A line says when its token counts are the router's own estimates, and only then."""
    made = record()
    assert "estimated" not in json.loads(JsonLines().line(made))
    made.estimated = True
    assert json.loads(JsonLines().line(made))["estimated"] is True
