"""The `Date` of an answer: of olla's own, and of an endpoint's that came without one.

RFC 9110, section 6.6.1: who has a clock and passes an answer on adds a date where there is none.
Written once a second, since every answer of a llama.cpp needs one.
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
    """Writes the date as a header line."""

    __slots__ = ("_clock", "_field", "_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._field = b""
        self._until = 0.0

    def field(self, now: float) -> bytes:
        """`Date` as of `now` (monotonic seconds), with its line end."""
        if now >= self._until or not self._field:
            wall = self._clock.wall()
            self._field = _field(wall)
            self._until = now + 1.0 - wall % 1.0
        return self._field


def _field(wall: float) -> bytes:
    """The line for a Unix time. The names are HTTP's, whatever the locale is."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(wall)
    date = f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d}"
    return f"Date: {date} {hour:02d}:{minute:02d}:{second:02d} GMT\r\n".encode()
