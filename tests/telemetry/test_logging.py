"""The program's own log."""

import io
import json
import logging

import pytest

from olla.telemetry.logging import Level, LogStyle, bridge_stdlib, drop_notice, make_logger


class SetClock:
    """Time that stands still."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_700_000_000.25


def logged(stream: io.StringIO) -> list[dict[str, object]]:
    """What was written, as objects."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_are_objects_with_time_and_level() -> None:
    """A line is one JSON object; what was bound or said is a field."""
    stream = io.StringIO()
    logger = make_logger(Level.INFO, LogStyle.JSON, stream.write, SetClock()).bind(router="a")
    logger.info("listening", url="http://localhost")
    assert logged(stream) == [
        {
            "router": "a",
            "url": "http://localhost",
            "level": "info",
            "ts": "2023-11-14T22:13:20.250Z",
            "message": "listening",
        }
    ]


def test_the_level_is_a_threshold() -> None:
    """What is below the level is not written."""
    stream = io.StringIO()
    logger = make_logger(Level.WARNING, LogStyle.JSON, stream.write)
    logger.info("quiet")
    logger.warning("loud")
    assert [line["message"] for line in logged(stream)] == ["loud"]


def test_two_loggers_do_not_mix() -> None:
    """Loggers made in one process have their own stream and level."""
    first, second = io.StringIO(), io.StringIO()
    make_logger(Level.DEBUG, LogStyle.JSON, first.write).debug("one")
    make_logger(Level.ERROR, LogStyle.JSON, second.write).debug("two")
    assert len(logged(first)) == 1
    assert not second.getvalue()


def test_exceptions_are_told_in_full() -> None:
    """A logged exception has its traceback, on one line in JSON."""
    stream = io.StringIO()
    logger = make_logger(Level.INFO, LogStyle.JSON, stream.write)
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    (line,) = logged(stream)
    assert "ValueError: broken" in str(line["exception"])


def test_values_that_are_no_json_are_shown() -> None:
    """Any object may be logged."""
    stream = io.StringIO()
    make_logger(Level.INFO, LogStyle.JSON, stream.write).info("x", value=b"raw", text="\ud800")
    assert logged(stream)[0]["value"] == "b'raw'"


def test_console_lines_cannot_be_forged() -> None:
    """On a terminal, control characters of a value are spelled out."""
    stream = io.StringIO()
    logger = make_logger(Level.INFO, LogStyle.CONSOLE, stream.write)
    logger.info("bad head", got="x\n2026 forged\x1b[31m")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_console_shows_exceptions() -> None:
    """People get the traceback below the line."""
    stream = io.StringIO()
    logger = make_logger(Level.INFO, LogStyle.CONSOLE, stream.write)
    logger.error("failed", exc_info=ValueError("broken"))
    assert "ValueError: broken" in stream.getvalue()


@pytest.mark.filterwarnings("default")
def test_libraries_warnings_come_through_until_detached() -> None:
    """The bridge hands on warnings and errors, not chatter, and can be taken down."""
    stream = io.StringIO()
    detach = bridge_stdlib(
        make_logger(Level.DEBUG, LogStyle.JSON, stream.write), ["olla.test.other"]
    )
    library = logging.getLogger("olla.test.other")
    library.info("chatter")
    library.warning("slow %s", "callback")
    library.error("broken")
    detach()
    library.warning("after")
    lines = logged(stream)
    assert [(line["level"], line["message"]) for line in lines] == [
        ("warning", "slow callback"),
        ("error", "broken"),
    ]
    assert lines[0]["logger"] == "olla.test.other"
    assert not library.handlers


@pytest.mark.parametrize("style", list(LogStyle))
def test_a_notice_of_missing_lines_looks_like_any_other_line(style: LogStyle) -> None:
    """It names the log, and how many lines of it are missing."""
    notice = drop_notice("requests", style, SetClock())
    for lines in (3, 4):
        line = notice(lines).decode()
        assert line.count("\n") == 1
        assert "lines were dropped" in line
        assert "requests" in line
        assert str(lines) in line
    if style is LogStyle.JSON:
        assert json.loads(line)["level"] == "warning"


@pytest.mark.filterwarnings("default")
def test_no_library_writes_past_the_log() -> None:
    """Without a handler, Python writes warnings to standard error, and waits for its reader."""
    lines: list[str] = []
    detach = bridge_stdlib(make_logger(Level.DEBUG, LogStyle.JSON, lines.append))
    for name in ("aiosqlite", "alembic", "asyncio", "asyncpg", "redis", "sqlalchemy.pool"):
        logging.getLogger(name).warning("from %s", name)
    detach()
    assert len(lines) == 6
