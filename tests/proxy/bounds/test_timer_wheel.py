"""The shared timer wheel: each is looked at in time, once, whatever the others do."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.bounds.timer_wheel import TimerWheel

TURNS_MAX = 10_000


class Timer:
    """A call at a moment of a hand-made loop."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Take it back."""
        self.cancelled = True


class Loop:
    """An event loop's clock and timers, in the test's hand: as in uvloop, the time stands still
    while callbacks run."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.timers: list[Timer] = []
        self.reported: list[dict[str, Any]] = []

    def time(self) -> float:
        """The moment at which this turn began."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Set a timer."""
        timer = Timer(when, callback)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note what was reported."""
        self.reported.append(context)

    def turn(self, late: float = 0.0) -> bool:
        """Go on to the next timer, or a little beyond it; False when none is left. uvloop counts
        milliseconds, so a timer may come up to one of them early: `late` below zero."""
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


class Waiting:
    """Something that may be silent for so many seconds: as slow clients and attempts do, it asks
    to be looked at again as long as time is left."""

    def __init__(self, loop: Any, deadlines: TimerWheel, limit: float, margin: float = 0.0) -> None:
        self.slot = 0.0
        self.loop = loop
        self.deadlines = deadlines
        self.limit = limit
        self.margin = margin
        self.heard = loop.time()
        self.looked_at = 0
        self.ended_at: float | None = None
        self.also: Callable[[], None] = lambda: None
        deadlines.watch(self, self.heard + limit)

    def due(self) -> None:
        """End, or be looked at again."""
        self.looked_at += 1
        assert self.looked_at < TURNS_MAX, "it never ends"
        left = self.heard + self.limit - self.loop.time()
        if left > self.margin:
            self.deadlines.watch(self, self.loop.time() + left)
            return
        self.ended_at = self.loop.time()
        self.also()


def wheel(now: float) -> tuple[Loop, TimerWheel]:
    """A wheel on a hand-made loop."""
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
    """Whatever fraction of a second a limit is, nobody is looked at twice in one turn of the
    loop, none too early, and none later than its slot and the loop's own delay."""
    loop, deadlines = wheel(now)
    waiting = [Waiting(loop, deadlines, limit) for limit in limits]
    while loop.turn(late):
        pass
    for each in waiting:
        assert each.ended_at is not None
        assert each.ended_at >= each.heard + each.limit
        slot = 1.0 if each.limit > 20 else 0.05
        assert each.ended_at <= each.heard + each.limit + 2 * slot + max(late, 0.0) + 0.01
        assert each.looked_at <= 3
    assert len(deadlines) == 0


@given(now=moments, limit=seconds, words=st.lists(st.floats(0.0, 1.0), max_size=30))
def test_whoever_was_heard_of_meanwhile_has_its_time_anew(
    now: float, limit: float, words: list[float]
) -> None:
    """A sign of life in the middle of a wait moves its end, however near to a slot it comes."""
    loop, deadlines = wheel(now)
    waiting = Waiting(loop, deadlines, limit)
    for word in words:
        loop.now += word * limit
        if waiting.ended_at is None:
            waiting.heard = loop.now
    while loop.turn():
        pass
    assert waiting.ended_at is not None
    assert waiting.ended_at >= waiting.heard + limit


@pytest.mark.parametrize("limit", [0.4, 0.7, 0.9, 0.05, 0.1, 0.35])
def test_an_entry_never_goes_into_the_slot_that_is_being_drained(limit: float) -> None:
    """A deadline a hair after the moment at which its slot fires belongs to the next slot: the
    same one would be drained for ever."""
    for number in range(1000):
        loop, deadlines = wheel(1000.0 + number * 0.05)
        waiting = Waiting(loop, deadlines, limit)
        while loop.turn(late=-0.0004):
            pass
        assert waiting.looked_at <= 2


def test_a_loop_that_stood_still_for_long_looks_at_each_once() -> None:
    """Two hundred slots are overdue: whoever wants to be looked at again waits for the next."""
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


def test_one_that_raises_costs_no_other_its_time_out() -> None:
    """The rest of its slot and all later slots are looked at; the loop's handler gets the error."""
    loop, deadlines = wheel(50.0)
    ended: list[int] = []

    def failing() -> None:
        raise ValueError("a fault in one of them")

    waiting = [Waiting(loop, deadlines, 0.1 + 0.2 * (number // 4)) for number in range(12)]
    for number, each in enumerate(waiting):
        each.also = failing if number % 4 == 1 else lambda number=number: ended.append(number)
    while loop.turn():
        pass
    assert ended == [number for number in range(12) if number % 4 != 1]
    assert len(loop.reported) == 3
    assert all(isinstance(each["exception"], ValueError) for each in loop.reported)
    assert len(deadlines) == 0


def test_an_interruption_loses_no_later_time_out() -> None:
    """Ctrl-C within one of them ends the loop's turn, and the wheel goes on in the next."""
    loop, deadlines = wheel(50.0)
    first, second, third = (Waiting(loop, deadlines, limit) for limit in (0.1, 0.1, 0.3))

    def interrupt() -> None:
        raise KeyboardInterrupt

    first.also = interrupt
    with pytest.raises(KeyboardInterrupt):
        loop.turn()
    while loop.turn():
        pass
    assert second.ended_at is not None
    assert third.ended_at is not None


def test_whoever_is_forgotten_is_not_called() -> None:
    """Neither before nor while others in the same slot are."""
    loop, deadlines = wheel(10.0)
    first, second, third = (Waiting(loop, deadlines, 0.01) for _ in range(3))
    first.also = lambda: deadlines.forget(second)
    deadlines.forget(third)
    deadlines.forget(third)
    while loop.turn():
        pass
    assert [each.looked_at for each in (first, second, third)] == [1, 0, 0]


def test_a_deadline_can_be_moved_both_ways() -> None:
    """The last one counts."""
    loop, deadlines = wheel(10.0)
    sooner, later = Waiting(loop, deadlines, 500.0), Waiting(loop, deadlines, 0.01)
    sooner.limit = 0.01
    deadlines.watch(sooner, 10.01)
    later.limit = 500.0
    deadlines.watch(later, 510.0)
    loop.turn()
    assert sooner.ended_at is not None
    assert later.looked_at == 0
    assert len(deadlines) == 1


def test_many_far_deadlines_share_few_timers() -> None:
    """Those of a second are one slot."""
    loop, deadlines = wheel(10.0)
    for number in range(1000):
        Waiting(loop, deadlines, 600 + number / 1000)
    assert len(deadlines) == 1000
    assert len({timer.when for timer in loop.timers if not timer.cancelled}) == 1
    deadlines.close()
    assert all(timer.cancelled for timer in loop.timers)


async def test_the_running_loop_s_timers_are_used() -> None:
    """On a real loop the near ones come within a twentieth of a second, and not early."""
    deadlines = TimerWheel()
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    waiting = [Waiting(loop, deadlines, 0.02 * number) for number in range(5)]
    waiting[-1].also = done.set
    await done.wait()
    for each in waiting:
        assert each.ended_at is not None
        assert each.ended_at >= each.heard + each.limit - 0.002
        assert each.slot == 0.0
