"""The request log: one line a request, nothing secret."""

import json
import re

import pytest

from olla.failures import Failure, Kind
from olla.record import AttemptRecord
from olla.telemetry.request_log import JsonLines, LogFormat, RequestLog, text_line
from tests.telemetry.conftest import Written
from tests.telemetry.samples import record


@pytest.mark.parametrize("format", list(LogFormat))
def test_each_record_is_a_line_of_its_log(format: LogFormat, written: Written) -> None:
    """In the order of their ends, and counted where they find no room."""
    log = RequestLog(written.log, format)
    for number in range(50):
        log(record(id=f"r-{number}"))
    ids = [re.search(r"r-\d+", line) for line in written.lines()]
    assert [found[0] for found in ids if found] == [f"r-{number}" for number in range(50)]
    written.writer.close(5.0)
    log(record())
    assert written.writer.dropped == {"requests": 1}


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
