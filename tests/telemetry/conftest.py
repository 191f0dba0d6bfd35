"""A hand-made timer, and a log in a file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from olla.telemetry.log_writer import LogWriter, open_for_appending


class Call:
    """A scheduled call."""

    def __init__(self, after: float, callback: Callable[[], None]) -> None:
        self.after = after
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Timers:
    """A `call_later` whose calls come when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, after: float, callback: Callable[[], None]) -> Call:
        call = Call(after, callback)
        self.calls.append(call)
        return call

    @property
    def waiting(self) -> list[Call]:
        return [call for call in self.calls if not call.cancelled]

    def fire(self) -> None:
        """Run what is scheduled now."""
        due, self.calls = self.waiting, []
        for call in due:
            call.callback()


@pytest.fixture
def timers() -> Timers:
    """Timers in the test's hand."""
    return Timers()


class Written:
    """A log that is written to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = LogWriter(open_for_appending(path))
        self.log = self.writer.log("requests")

    def lines(self) -> list[str]:
        """What was written so far."""
        assert self.writer.flush(5.0)
        return self.path.read_text().splitlines()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """A log."""
    log = Written(tmp_path / "log")
    yield log
    log.writer.close(5.0)
