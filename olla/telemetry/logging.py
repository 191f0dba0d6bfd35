"""The program's own log: a structlog logger that is made, not configured.

`make_logger` touches no global state, so two routers in one process log to two places. What
happened to requests is `request_log`'s, and how lines are written `log_writer`'s.
"""

import enum
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from olla.clock import Clock, SystemClock

__all__ = ["Level", "LogStyle", "bridge_stdlib", "drop_notice", "make_logger"]


class LogStyle(enum.Enum):
    """How lines look."""

    JSON = "json"
    CONSOLE = "console"


class Level(enum.Enum):
    """From which severity on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The same as the standard library numbers it."""
        return logging.getLevelNamesMapping()[self.name]


def make_logger(
    level: Level,
    style: LogStyle,
    write: Callable[[str], object],
    clock: Clock | None = None,
    *,
    colors: bool = False,
) -> FilteringBoundLogger:
    """A logger that hands lines of at least `level` to `write`, each with its line end.

    `ts` is UTC. `write` must not block where an event loop logs.
    """
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        _Timestamp(clock or SystemClock()),
    ]
    if style is LogStyle.JSON:
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=repr),
        ]
    else:
        processors += [
            _without_control_characters,
            structlog.dev.ConsoleRenderer(
                colors=colors,
                timestamp_key="ts",
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(write),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        context_class=dict,
        cache_logger_on_first_use=False,
    ).bind()
    return logger


def drop_notice(name: str, style: LogStyle, clock: Clock | None = None) -> Callable[[int], bytes]:
    """Makes the line that says how many lines of a log are missing."""
    made: list[str] = []
    logger = make_logger(Level.WARNING, style, made.append, clock)

    def notice(lines: int) -> bytes:
        logger.warning("lines were dropped", log=name, lines=lines)
        return made.pop().encode()

    return notice


_LIBRARIES = (
    *("aiohttp", "aiosqlite", "alembic", "asyncio", "asyncpg", "concurrent.futures", "redis"),
    "sqlalchemy",
)
"""Libraries that log. Without a handler Python writes their warnings to standard error, and waits
for its reader."""


def bridge_stdlib(
    logger: FilteringBoundLogger, names: Iterable[str] = _LIBRARIES
) -> Callable[[], None]:
    """Hand warnings and errors of libraries' own loggers on to `logger`.

    The standard library's loggers belong to the process, so the one who bridges also takes the
    bridge down: by calling what this returns.
    """
    handler = _Forward(logger)
    bridged = [logging.getLogger(name) for name in names]
    for each in bridged:
        each.addHandler(handler)

    def detach() -> None:
        for each in bridged:
            each.removeHandler(handler)

    return detach


class _Lines:
    """In the place of a logger of structlog's: what is logged has become a line by then."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write it, whatever its level."""
        self._write(f"{line}\n")

    debug = info = warning = error = critical = msg


class _Forward(logging.Handler):
    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        write = self._logger.error if record.levelno >= logging.ERROR else self._logger.warning
        try:
            write(record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:
            self.handleError(record)


class _Timestamp:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        when = datetime.fromtimestamp(self._clock.wall(), UTC)
        event["ts"] = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event


def _without_control_characters(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    # A terminal obeys them, and what a peer sent may be among the values.
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return event
