"""The decision log: a sink that appends what was decided to a file, for `olla replay`.

Lines leave in batches. A file that cannot be written to never costs a request: lines are dropped,
and the log says so once.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from olla.record import RequestRecord
from olla.routing.journal import Decided, FleetFacts

__all__ = ["DecisionLog", "decided"]

_FLUSH_AFTER = 1.0
_FACTS_INTERVAL = 60.0
"""Seconds between two lines about the fleet."""
_PENDING_MAX = 10_000
"""Lines kept while they cannot be written."""


class DecisionLog:
    """Appends a line for each inference request that was routed."""

    def __init__(
        self,
        path: Path,
        facts: Callable[[float], FleetFacts],
        logger: FilteringBoundLogger,
    ) -> None:
        """`facts` tells of the fleet, given Unix seconds.

        Raises:
            OSError: the file cannot be opened.
        """
        self.dropped = 0
        self._facts = facts
        self._logger = logger
        self._file = path.open("ab")
        self._pending: list[bytes] = []
        self._facts_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished request."""
        line = decided(record)
        if line is None:
            return
        if record.started_wall - self._facts_at >= _FACTS_INTERVAL:
            self._facts_at = record.started_wall
            self._add(msgspec.json.encode(self._facts(record.started_wall)))
        self._add(msgspec.json.encode(line))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_AFTER, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        data = b"".join(self._pending)
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self.dropped += len(self._pending)
            if not self._failed:
                self._logger.error("decision log cannot be written", error=str(error))
            self._failed = True
        else:
            self._failed = False
        self._pending = []

    def close(self) -> None:
        """Write what has gathered, and close the file."""
        self.flush()
        self._file.close()

    def _add(self, line: bytes) -> None:
        if len(self._pending) >= _PENDING_MAX:
            self.dropped += 1
        else:
            self._pending.append(line + b"\n")


def decided(record: RequestRecord) -> Decided | None:
    """What the log holds of a request; None for one that was not about a model."""
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
