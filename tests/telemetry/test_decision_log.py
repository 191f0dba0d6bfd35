"""The decision log."""

from pathlib import Path

import msgspec
import pytest
from structlog.testing import LogCapture

from olla.routing.journal import Decided, FleetFacts, JournalLine
from olla.telemetry.decision_log import DecisionLog, decided
from tests.probing.logs import capturing_logger
from tests.telemetry.samples import record

SECRET = "the client's own words"


def log_to(path: Path) -> tuple[DecisionLog, LogCapture]:
    """A log with an empty fleet, and what the program's log is told."""
    told = LogCapture()
    facts = FleetFacts(0.0, "priority", ())
    return DecisionLog(path, lambda _: facts, capturing_logger(told)), told


def read(path: Path) -> list[JournalLine]:
    """Its lines."""
    decoder = msgspec.json.Decoder(JournalLine)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


def test_each_request_is_a_line_after_one_about_the_fleet(tmp_path: Path) -> None:
    """And what was there before stays."""
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        log, _ = log_to(path)
        for _ in range(3):
            log(record(model="m", inference=True))
        log.close(5.0)
    kinds = [type(line) for line in read(path)]
    assert kinds == [FleetFacts, Decided, Decided, Decided] * 2


def test_nothing_of_what_was_said_or_who_said_it_is_in_it(tmp_path: Path) -> None:
    """Names and lengths only."""
    path = tmp_path / "log.jsonl"
    log, _ = log_to(path)
    log(record(model="m", inference=True, client=SECRET, path=f"/api/chat?key={SECRET}", id=SECRET))
    log.close(5.0)
    assert SECRET not in path.read_text()


def test_what_was_not_about_a_model_is_left_out() -> None:
    """Lists, health, refused bodies."""
    assert decided(record(model="m", inference=False)) is None
    told = decided(record(model="m", inference=True))
    assert told is not None
    assert told.model == "m"


def test_a_file_that_cannot_be_written_costs_lines_not_requests() -> None:
    """They are counted; the program's log says so once, and closing raises nothing."""
    log, told = log_to(Path("/dev/full"))
    for _ in range(3):
        log(record(model="m", inference=True))
        assert log._writer.flush(5.0)
    assert log.dropped == {"decisions": 4}
    log(record(model="m", inference=True))
    log.close(5.0)
    assert log.dropped == {"decisions": 5}
    assert [each["event"] for each in told.entries] == ["decision log cannot be written"]
    assert "No space left" in told.entries[0]["error"]


def test_what_is_missing_is_said_once_it_is_known(tmp_path: Path) -> None:
    """In the program's log: the file holds nothing but what was decided."""
    path = tmp_path / "log.jsonl"
    log, told = log_to(path)
    log._log.lose(7)
    log(record(model="m", inference=True))
    log.close(5.0)
    assert len(read(path)) == 2
    assert [(each["event"], each["lines"]) for each in told.entries] == [("lines were dropped", 7)]


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    """The operator is told at the start."""
    with pytest.raises(FileNotFoundError):
        log_to(tmp_path / "no" / "log.jsonl")
