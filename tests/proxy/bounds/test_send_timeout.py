"""Time-outs of clients that do not read their response."""

from typing import Any, cast

from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.send_timeout import SendTimeout
from olla.proxy.bounds.timer_wheel import TimerWheel

LIMITS = ClientTimeouts(send=60.0, min_rate=500.0)


class FakeConnection:
    """An event loop, a timer wheel and a transport, all with values that the test sets."""

    def __init__(self, unsent: int) -> None:
        self.now = 1000.0
        self.unsent = unsent
        self.deadline: float | None = None
        self.stalled = 0

    def time(self) -> float:
        """Return the loop's time."""
        return self.now

    def get_write_buffer_size(self) -> int:
        """Return the unread bytes."""
        return self.unsent

    def watch(self, watched: SendTimeout, deadline: float) -> None:
        """Record the deadline."""
        self.deadline = deadline

    def forget(self, watched: SendTimeout) -> None:
        """Clear the deadline."""
        self.deadline = None

    def stall(self, transport: object) -> None:
        """Count the time-outs."""
        assert transport is self
        self.stalled += 1


def send_timeout(fake: FakeConnection) -> SendTimeout:
    """Start a time-out for the unread bytes."""
    world = cast(Any, fake)
    return SendTimeout(world, LIMITS, cast(TimerWheel, fake), world, fake.stall)


def pass_until_due(fake: FakeConnection, timeout: SendTimeout) -> None:
    """Advance to the deadline."""
    assert fake.deadline is not None
    fake.now, fake.deadline = fake.deadline, None
    timeout.due()


def test_a_client_that_reads_nothing_times_out() -> None:
    """At `send_timeout`, not earlier."""
    fake = FakeConnection(unsent=5000)
    timeout = send_timeout(fake)
    assert fake.deadline == 1060.0
    pass_until_due(fake, timeout)
    assert fake.stalled == 1
    assert fake.deadline is None


def test_reading_extends_the_time_in_proportion() -> None:
    """By one second for each `min_rate` bytes. A client at that rate never times out; one that
    reads a byte now and then, or stops after a large piece, does."""
    fake = FakeConnection(unsent=200_000)
    timeout = send_timeout(fake)
    fake.unsent -= 5_000
    pass_until_due(fake, timeout)
    assert (fake.stalled, fake.deadline) == (0, 1070.0)
    fake.unsent -= 100_000
    pass_until_due(fake, timeout)
    assert (fake.stalled, fake.deadline) == (0, 1130.0)
    fake.unsent -= 500
    pass_until_due(fake, timeout)
    assert (fake.stalled, fake.deadline) == (0, 1131.0)
    pass_until_due(fake, timeout)
    assert fake.stalled == 1


def test_writing_more_does_not_change_the_time_left() -> None:
    """A growing buffer neither extends nor shortens it."""
    fake = FakeConnection(unsent=100)
    timeout = send_timeout(fake)
    fake.unsent += 1000
    pass_until_due(fake, timeout)
    assert fake.stalled == 1


def test_a_stopped_timeout_has_no_deadline() -> None:
    """`stop` is called when the client has read everything."""
    fake = FakeConnection(unsent=5000)
    send_timeout(fake).stop()
    assert fake.deadline is None
