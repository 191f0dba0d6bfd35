"""The `Date` field of a response."""

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.http.date_header import DateHeader


class Clock:
    """A clock with a settable wall time."""

    def __init__(self, wall: float) -> None:
        self.walls = 0
        self._wall = wall

    def now(self) -> float:
        """Never called: `now` is an argument of `DateHeader.field`."""
        raise AssertionError

    def wall(self) -> float:
        """Return the Unix time."""
        self.walls += 1
        return self._wall

    def set(self, wall: float) -> None:
        """Set the Unix time."""
        self._wall = wall


@given(st.floats(0, 253_402_300_799))
def test_a_date_has_the_http_format(wall: float) -> None:
    """In English and in GMT, the only format that servers may send."""
    expected = f"Date: {formatdate(int(wall), usegmt=True)}\r\n"
    assert DateHeader(Clock(wall)).field(1.0) == expected.encode()


def test_a_date_is_written_once_a_second() -> None:
    """It is valid until the wall clock's next second, not for one second from the first call."""
    clock = Clock(784_111_777.75)
    dates = DateHeader(clock)
    first = dates.field(100.0)
    clock.set(784_111_777.99)
    assert dates.field(100.24) is first
    assert clock.walls == 1
    clock.set(784_111_778.0)
    assert dates.field(100.25) == b"Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"


def test_a_clock_that_was_set_back_is_noticed_within_a_second() -> None:
    """The cached field expires by monotonic time, which cannot be set."""
    clock = Clock(784_111_777.0)
    dates = DateHeader(clock)
    dates.field(100.0)
    clock.set(784_000_000.0)
    assert dates.field(101.0) == f"Date: {formatdate(784_000_000, usegmt=True)}\r\n".encode()
