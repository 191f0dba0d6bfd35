"""How long a client may leave unread what was written to it."""

from typing import Any, cast

from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.send_timeout import SendTimeout
from olla.proxy.bounds.timer_wheel import TimerWheel

LIMITS = ClientTimeouts(send=60.0, min_rate=500.0)


class Still:
    """A loop whose clock is set, its deadlines, and a transport whose buffer is set."""

    def __init__(self, unsent: int) -> None:
        self.now = 1000.0
        self.unsent = unsent
        self.deadline: float | None = None
        self.stalled = 0

    def time(self) -> float:
        """Seconds."""
        return self.now

    def get_write_buffer_size(self) -> int:
        """Bytes."""
        return self.unsent

    def watch(self, watched: SendTimeout, deadline: float) -> None:
        """Remember."""
        self.deadline = deadline

    def forget(self, watched: SendTimeout) -> None:
        """Forget."""
        self.deadline = None

    def stall(self, transport: object) -> None:
        """Count."""
        assert transport is self
        self.stalled += 1


def waiting(still: Still) -> SendTimeout:
    """Bytes wait for a client."""
    world = cast(Any, still)
    return SendTimeout(world, LIMITS, cast(TimerWheel, still), world, still.stall)


def pass_until_due(still: Still, timeout: SendTimeout) -> None:
    """Let the deadline come."""
    assert still.deadline is not None
    still.now, still.deadline = still.deadline, None
    timeout.due()


def test_a_client_that_takes_nothing_has_stalled_after_the_time() -> None:
    """Not before."""
    still = Still(unsent=5000)
    timeout = waiting(still)
    assert still.deadline == 1060.0
    pass_until_due(still, timeout)
    assert still.stalled == 1
    assert still.deadline is None


def test_what_a_client_takes_gives_it_more_time_and_no_more_than_that() -> None:
    """A second for each `min_rate` bytes: a steady line of that rate passes, a byte now and then
    does not, nor one that stops after a large piece."""
    still = Still(unsent=200_000)
    timeout = waiting(still)
    still.unsent -= 5_000
    pass_until_due(still, timeout)
    assert (still.stalled, still.deadline) == (0, 1070.0)
    still.unsent -= 100_000
    pass_until_due(still, timeout)
    assert (still.stalled, still.deadline) == (0, 1130.0)
    still.unsent -= 500
    pass_until_due(still, timeout)
    assert (still.stalled, still.deadline) == (0, 1131.0)
    pass_until_due(still, timeout)
    assert still.stalled == 1


def test_what_is_written_meanwhile_is_not_held_against_nor_for_it() -> None:
    """The buffer may grow."""
    still = Still(unsent=100)
    timeout = waiting(still)
    still.unsent += 1000
    pass_until_due(still, timeout)
    assert still.stalled == 1


def test_a_client_that_has_taken_everything_is_left_alone() -> None:
    """Once it is stopped."""
    still = Still(unsent=5000)
    waiting(still).stop()
    assert still.deadline is None
