"""Event-loop lag."""

import asyncio

from olla.telemetry.loop_lag import LoopLag
from tests.telemetry.conftest import Timers


class SetClock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.monotonic = 50.0

    def now(self) -> float:
        return self.monotonic

    def wall(self) -> float:
        return 0.0


def test_the_worst_recent_lag_counts(timers: Timers) -> None:
    """Lag is how late a timer came; the worst is forgotten once it is old."""
    clock = SetClock()
    lag = LoopLag(clock, timers, interval=0.5, samples=3)
    assert lag.worst() == 0.0
    lag.start()
    for late in (0.0, 0.25, 0.0, 0.125):
        clock.monotonic += 0.5 + late
        timers.fire()
    assert lag.worst() == 0.25
    clock.monotonic += 0.5
    timers.fire()
    assert lag.worst() == 0.125


def test_starting_twice_is_one_timer_and_stopping_none(timers: Timers) -> None:
    """There is at most one timer, and none after the end."""
    lag = LoopLag(SetClock(), timers)
    lag.start()
    lag.start()
    assert len(timers.waiting) == 1
    lag.stop()
    lag.stop()
    assert not timers.waiting


async def test_it_runs_in_the_loop_it_is_started_in() -> None:
    """Without timers of its own it uses the running loop's."""
    fired = asyncio.Event()

    class TellingClock(SetClock):
        asked = 0

        def now(self) -> float:
            self.asked += 1
            if self.asked > 1:
                fired.set()
            return 0.0

    lag = LoopLag(TellingClock(), interval=0.001)
    lag.start()
    await fired.wait()
    lag.stop()
    assert lag.worst() == 0.0
