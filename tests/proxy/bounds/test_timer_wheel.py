"""The shared timer wheel: each entry becomes due on time and once, independent of the others."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.bounds.timer_wheel import TimerWheel

TURNS_MAX = 10_000


class Timer:
    """A timer of the fake loop."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Cancel the timer."""
        self.cancelled = True


class Loop:
    """A fake event loop with a clock and timers. As in uvloop, time stands still while callbacks
    run."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.timers: list[Timer] = []
        self.reported: list[dict[str, Any]] = []

    def time(self) -> float:
        """Return the time at which this iteration began."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Set a timer."""
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Record a reported error."""
        self.reported.append(context)

    def turn(self, late: float = 0.0) -> bool:
        """Advance to the next timer plus `late` seconds; return False when no timer is left.

        uvloop counts milliseconds, so a timer may fire up to one millisecond early: then `late` is
        negative.
        """
        self.timers = [each for each in self.timers if not each.cancelled]
        if not self.timers:
            return False
        self.now = max(self.now, min(each.when for each in self.timers) + late)
        due = [each for each in self.timers if each.when + min(late, 0.0) <= self.now]
        self.timers = [each for each in self.timers if each not in due]
        for each in due:
            if not each.cancelled:
                each.callback()
        return True


class Entry:
    """An entry that ends after `limit` seconds of silence. Like slow clients and attempts, it
    extends its deadline as long as time is left."""

    def __init__(self, loop: Any, deadlines: TimerWheel, limit: float, margin: float = 0.0) -> None:
        self.slot = 0.0
        self.loop = loop
        self.deadlines = deadlines
        self.limit = limit
        self.margin = margin
        self.active_at = loop.time()
        self.calls = 0
        self.ended_at: float | None = None
        self.on_end: Callable[[], None] = lambda: None
        deadlines.watch(self, self.active_at + limit)

    def due(self) -> None:
        """End, or extend the deadline."""
        self.calls += 1
        assert self.calls < TURNS_MAX, "it never ends"
        left = self.active_at + self.limit - self.loop.time()
        if left > self.margin:
            self.deadlines.watch(self, self.loop.time() + left)
            return
        self.ended_at = self.loop.time()
        self.on_end()


def wheel(now: float) -> tuple[Loop, TimerWheel]:
    """Return a wheel on a fake loop."""
    loop = Loop(now)
    return loop, TimerWheel(loop)  # type: ignore[arg-type]


seconds = st.one_of(
    st.integers(1, 4000).map(lambda ms: ms / 1000),
    st.floats(0.001, 30.0, allow_nan=False),
)
moments = st.floats(0.0, 4e6, allow_nan=False)


@given(now=moments, limits=st.lists(seconds, min_size=1, max_size=20), late=st.floats(-0.001, 0.3))
def test_every_deadline_ends_in_time_while_the_clock_stands_still(
    now: float, limits: list[float], late: float
) -> None:
    """For limits of any fraction of a second: no entry is due twice in one iteration of the loop,
    none is early, and none is later than its slot plus the loop's own delay."""
    loop, deadlines = wheel(now)
    entries = [Entry(loop, deadlines, limit) for limit in limits]
    while loop.turn(late):
        pass
    for each in entries:
        assert each.ended_at is not None
        assert each.ended_at >= each.active_at + each.limit
        slot = 1.0 if each.limit > 20 else 0.05
        assert each.ended_at <= each.active_at + each.limit + 2 * slot + max(late, 0.0) + 0.01
        assert each.calls <= 3
    assert len(deadlines) == 0


@given(now=moments, limit=seconds, pauses=st.lists(st.floats(0.0, 1.0), max_size=30))
def test_activity_extends_a_deadline_by_the_full_limit(
    now: float, limit: float, pauses: list[float]
) -> None:
    """Even if the activity is close to the slot's time."""
    loop, deadlines = wheel(now)
    entry = Entry(loop, deadlines, limit)
    for pause in pauses:
        loop.now += pause * limit
        if entry.ended_at is None:
            entry.active_at = loop.now
    while loop.turn():
        pass
    assert entry.ended_at is not None
    assert entry.ended_at >= entry.active_at + limit


@pytest.mark.parametrize("limit", [0.4, 0.7, 0.9, 0.05, 0.1, 0.35])
def test_an_entry_never_goes_into_the_slot_that_is_being_drained(limit: float) -> None:
    """A deadline just after its slot fires belongs to the next slot; otherwise the slot would be
    drained forever."""
    for number in range(1000):
        loop, deadlines = wheel(1000.0 + number * 0.05)
        entry = Entry(loop, deadlines, limit)
        while loop.turn(late=-0.0004):
            pass
        assert entry.calls <= 2


def test_a_blocked_loop_calls_each_entry_once() -> None:
    """With 200 slots overdue, an entry that extends its deadline waits for the next slot."""
    loop, deadlines = wheel(100.0)
    looked: list[int] = []

    class Ticking:
        slot = 0.0

        def due(self) -> None:
            looked.append(1)
            deadlines.watch(self, loop.time() - 5.0)

    ticking = Ticking()
    deadlines.watch(ticking, 100.1)
    loop.turn(late=10.0)
    assert len(looked) == 1
    assert [timer.when > loop.now for timer in loop.timers] == [True]
    deadlines.forget(ticking)


def test_an_exception_does_not_affect_other_entries() -> None:
    """The rest of the slot and all later slots are drained; the loop's handler gets the error."""
    loop, deadlines = wheel(50.0)
    ended: list[int] = []

    def failing() -> None:
        raise ValueError("callback failed")

    entries = [Entry(loop, deadlines, 0.1 + 0.2 * (number // 4)) for number in range(12)]
    for number, each in enumerate(entries):
        each.on_end = failing if number % 4 == 1 else lambda number=number: ended.append(number)
    while loop.turn():
        pass
    assert ended == [number for number in range(12) if number % 4 != 1]
    assert len(loop.reported) == 3
    assert all(isinstance(each["exception"], ValueError) for each in loop.reported)
    assert len(deadlines) == 0


def test_an_interrupt_loses_no_later_timeout() -> None:
    """Ctrl-C in a callback ends the loop's iteration; the wheel continues in the next."""
    loop, deadlines = wheel(50.0)
    first, second, third = (Entry(loop, deadlines, limit) for limit in (0.1, 0.1, 0.3))

    def interrupt() -> None:
        raise KeyboardInterrupt

    first.on_end = interrupt
    with pytest.raises(KeyboardInterrupt):
        loop.turn()
    while loop.turn():
        pass
    assert second.ended_at is not None
    assert third.ended_at is not None


def test_a_forgotten_entry_is_not_called() -> None:
    """Even if it is forgotten while its slot is being drained."""
    loop, deadlines = wheel(10.0)
    first, second, third = (Entry(loop, deadlines, 0.01) for _ in range(3))
    first.on_end = lambda: deadlines.forget(second)
    deadlines.forget(third)
    deadlines.forget(third)
    while loop.turn():
        pass
    assert [each.calls for each in (first, second, third)] == [1, 0, 0]


def test_a_deadline_can_be_moved_both_ways() -> None:
    """The last deadline counts."""
    loop, deadlines = wheel(10.0)
    sooner, later = Entry(loop, deadlines, 500.0), Entry(loop, deadlines, 0.01)
    sooner.limit = 0.01
    deadlines.watch(sooner, 10.01)
    later.limit = 500.0
    deadlines.watch(later, 510.0)
    loop.turn()
    assert sooner.ended_at is not None
    assert later.calls == 0
    assert len(deadlines) == 1


def test_many_far_deadlines_share_few_timers() -> None:
    """Deadlines within one second share a slot."""
    loop, deadlines = wheel(10.0)
    for number in range(1000):
        Entry(loop, deadlines, 600 + number / 1000)
    assert len(deadlines) == 1000
    assert len({timer.when for timer in loop.timers if not timer.cancelled}) == 1
    deadlines.close()
    assert all(timer.cancelled for timer in loop.timers)


async def test_the_wheel_works_on_a_real_loop() -> None:
    """No entry is due early."""
    deadlines = TimerWheel()
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    entries = [Entry(loop, deadlines, 0.02 * number) for number in range(5)]
    entries[-1].on_end = done.set
    await done.wait()
    for each in entries:
        assert each.ended_at is not None
        assert each.ended_at >= each.active_at + each.limit - 0.002
        assert each.slot == 0.0
