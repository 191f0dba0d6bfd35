"""The decision log."""

from pathlib import Path
from typing import Any

import msgspec
import structlog

from olla.routing.journal import Decided, FleetFacts, JournalLine
from olla.telemetry.decision_log import DecisionLog, decided
from tests.telemetry.samples import record

SECRET = "the client's own words"


def log_to(path: Path) -> DecisionLog:
    """A log with an empty fleet."""
    logger: Any = structlog.get_logger()
    return DecisionLog(path, lambda wall: FleetFacts(wall, "priority", ()), logger)


def read(path: Path) -> list[JournalLine]:
    """Its lines."""
    decoder = msgspec.json.Decoder(JournalLine)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


async def test_each_request_is_a_line_after_one_about_the_fleet(tmp_path: Path) -> None:
    """And what was there before stays."""
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        log = log_to(path)
        for _ in range(3):
            log(record(model="m", inference=True))
        log.close()
    kinds = [type(line) for line in read(path)]
    assert kinds == [FleetFacts, Decided, Decided, Decided] * 2


async def test_nothing_of_what_was_said_or_who_said_it_is_in_it(tmp_path: Path) -> None:
    """Names and lengths only."""
    path = tmp_path / "log.jsonl"
    log = log_to(path)
    log(record(model="m", inference=True, client=SECRET, path=f"/api/chat?key={SECRET}", id=SECRET))
    log.close()
    assert SECRET not in path.read_text()


def test_what_was_not_about_a_model_is_left_out() -> None:
    """Lists, health, refused bodies."""
    assert decided(record(model="m", inference=False)) is None
    told = decided(record(model="m", inference=True))
    assert told is not None
    assert told.model == "m"


async def test_a_file_that_cannot_be_written_costs_lines_not_requests(tmp_path: Path) -> None:
    """They are counted."""
    log = log_to(tmp_path / "log.jsonl")
    log._file.close()
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    log(record(model="m", inference=True))
    log.flush()
    assert log.dropped == 2
    log.close()
