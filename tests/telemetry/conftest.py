"""A hand-made timer and record."""

from collections.abc import Callable

import pytest


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
