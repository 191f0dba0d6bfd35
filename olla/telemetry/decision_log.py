"""Append routing decisions to a file, for `olla replay`.

A thread writes the lines in batches. A file that cannot be written, or a FIFO without a reader,
never delays a request: lines are dropped and counted, and the program's log reports it once.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from olla.clock import Clock
from olla.record import RequestRecord
from olla.routing.journal import Decided, FleetFacts
from olla.telemetry.log_writer import LogWriter, open_for_appending

__all__ = ["DecisionLog", "decided"]

_FLUSH_AFTER = 1.0
_FACTS_INTERVAL = 60.0
"""Seconds between two lines about the fleet."""


class DecisionLog:
    """A sink that appends a line for each routed inference request."""

    def __init__(
        self,
        path: Path,
        facts: Callable[[float], FleetFacts],
        logger: FilteringBoundLogger,
        clock: Clock | None = None,
    ) -> None:
        """`facts` returns the state of the fleet at a Unix time.

        Raises:
            OSError: the file cannot be opened.
        """
        self._facts = facts
        self._logger = logger
        self._writer = LogWriter(
            open_for_appending(path), failed=self._failed, clock=clock, flush_after=_FLUSH_AFTER
        )
        self._log = self._writer.log("decisions", self._missing)
        self._facts_at = 0.0
        self._told = False
        """The loss of lines has been logged."""

    @property
    def dropped(self) -> dict[str, int]:
        """The number of lines that could not be written."""
        return self._writer.dropped

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished request."""
        line = decided(record)
        if line is None:
            return
        if record.started_wall - self._facts_at >= _FACTS_INTERVAL:
            self._facts_at = record.started_wall
            self._log.put(msgspec.json.encode(self._facts(record.started_wall)) + b"\n")
        self._log.put(msgspec.json.encode(line) + b"\n")

    def close(self, timeout: float) -> None:
        """Write the remaining lines, up to `timeout` seconds, and close the file. Blocks."""
        self._writer.close(timeout)
        if self._log.untold and not self._told:
            self._missing(self._log.untold)

    def _failed(self, error: OSError) -> None:
        self._told = True
        self._logger.error("decision log cannot be written", error=str(error))

    def _missing(self, lines: int) -> bytes:
        """Write no notice into the file, which a program reads: the program's log reports the
        loss."""
        self._told = False
        self._logger.warning("lines were dropped", log="decisions", lines=lines)
        return b""


def decided(record: RequestRecord) -> Decided | None:
    """Return the line of a request; None for requests without a model."""
    if record.model is None or not record.inference:
        return None
    first = None if record.first_byte is None else record.first_byte - record.started
    return Decided(
        at=record.started_wall,
        model=record.model,
        operation=record.operation,
        endpoint=record.endpoint,
        reason=record.reason,
        status=record.status,
        prompt_tokens=record.prompt_tokens,
        output_tokens=record.output_tokens,
        load_options=record.load_options,
        predicted=record.predicted,
        queued=record.queue_seconds,
        first=first,
        whole=record.ended - record.started,
    )
