"""Make the program's own log: a structlog logger without global configuration.

Two routers in one process can thus log to two places. `request_log` logs requests, and `log_writer`
writes the lines.
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
    """The format of a line."""

    JSON = "json"
    CONSOLE = "console"


class Level(enum.Enum):
    """The minimum severity of logged lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The standard library's number of this level."""
        return logging.getLevelNamesMapping()[self.name]


def make_logger(
    level: Level,
    style: LogStyle,
    write: Callable[[str], object],
    clock: Clock | None = None,
    *,
    colors: bool = False,
) -> FilteringBoundLogger:
    """Return a logger that passes lines of at least `level` to `write`, each with its line end.

    `ts` is UTC. `write` must not block if an event loop logs.
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
    """Format the line that reports missing lines of a log."""
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
"""Libraries that log. Without a handler Python writes their warnings to standard error and waits
for its reader."""


def bridge_stdlib(
    logger: FilteringBoundLogger, names: Iterable[str] = _LIBRARIES
) -> Callable[[], None]:
    """Pass warnings and errors of libraries on to `logger`.

    The standard library's loggers belong to the process, so the caller also removes the bridge, by
    calling the returned function.
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
    """The logger behind structlog: it receives finished lines."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write the line at any level."""
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
    # Terminals obey them, and values may come from peers.
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return event
