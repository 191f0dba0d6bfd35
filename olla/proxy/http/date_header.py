"""Write the `Date` field of responses that olla generates, and of endpoint responses without one.

RFC 9110, section 6.6.1: a recipient with a clock adds a date to a response that it forwards
without one. The field is written once a second, because every response of llama.cpp needs it.
"""

import time
from typing import Final

from olla.clock import Clock

__all__ = ["DateHeader"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


class DateHeader:
    """Writes the `Date` line and caches it for the current second."""

    __slots__ = ("_clock", "_field", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._field = b""
        self._until = 0.0

    def field(self, now: float) -> bytes:
        """Return the `Date` line as of `now` (monotonic seconds)."""
        if now >= self._until or not self._field:
            wall = self._clock.wall()
            self._field = _field(wall)
            self._until = now + 1.0 - wall % 1.0
        return self._field


def _field(wall: float) -> bytes:
    """Return the line for a Unix time, with English names in every locale."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(wall)
    date = f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d}"
    return f"Date: {date} {hour:02d}:{minute:02d}:{second:02d} GMT\r\n".encode()
