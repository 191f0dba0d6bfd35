"""A timer wheel: coarse timers, shared by everything that waits for what will most likely not
happen.

A timer for each attempt costs a microsecond to set and to cancel, for limits of minutes that are
hardly ever reached. Here each entry is put into the slot in which it has to be looked at, and
taken out when it is done; the loop has one timer, for the earliest slot. An entry that was heard
of meanwhile is put into a later slot when its slot comes: with a limit of ten minutes a stream of
an hour is looked at six times.
"""

import asyncio
import heapq
from math import ceil, floor
from typing import Protocol

__all__ = ["TimerWheel", "Watched"]

_SLOTS_A_SECOND = 20
_FAR = 20.0
"""Seconds. What is nearer is late by one slot at most, what is farther by a second."""
_EARLY = 0.001
"""Seconds by which the loop may call a timer too early: uvloop counts whole milliseconds."""


class Watched(Protocol):
    """Something with a deadline."""

    slot: float
    """The slot it is in: written by `TimerWheel` only; 0 while it is in none."""

    def due(self) -> None:
        """Called when its deadline has come, as far as was known when it was watched."""
        ...


class TimerWheel:
    """All deadlines of one router, in the loop's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Timers are those of `loop`, by default the running one."""
        self._loop = loop or asyncio.get_running_loop()
        # Slots are whole numbers: in seconds, the noise of floats put an entry into the slot that
        # was being drained.
        self._slots: dict[float, dict[Watched, None]] = {}
        self._order: list[float] = []
        self._drained = 0.0
        """The last slot that was drained, or is being drained: no entry goes there again."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0.0

    def __len__(self) -> int:
        """How many entries are watched."""
        return sum(map(len, self._slots.values()))

    def watch(self, watched: Watched, deadline: float) -> None:
        """Call `due` at `deadline` (the loop's seconds), or a little later: within `_fire` never
        before the next turn of the loop."""
        if deadline - self._loop.time() > _FAR:
            slot = float(ceil(deadline) * _SLOTS_A_SECOND)
        else:
            slot = float(ceil(deadline * _SLOTS_A_SECOND))
        if slot <= self._drained:
            slot = self._drained + 1.0
        if watched.slot:
            if watched.slot == slot:
                return
            self.forget(watched)
        watched.slot = slot
        there = self._slots.get(slot)
        if there is None:
            there = self._slots[slot] = {}
            heapq.heappush(self._order, slot)
            if self._timer is None or slot < self._timer_slot:
                self._arm()
        there[watched] = None

    def forget(self, watched: Watched) -> None:
        """Do not look at it any more."""
        if watched.slot:
            del self._slots[watched.slot][watched]
            watched.slot = 0.0

    def close(self) -> None:
        """Look at nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = self._order[0]
        self._timer = self._loop.call_at(self._timer_slot / _SLOTS_A_SECOND, self._fire)

    def _fire(self) -> None:
        self._timer_slot = 0.0  # what is watched meanwhile needs no timer yet
        self._drained = float(floor((self._loop.time() + _EARLY) * _SLOTS_A_SECOND))
        try:
            while self._order and self._order[0] <= self._drained:
                self._drain(self._slots[self._order[0]])
                del self._slots[heapq.heappop(self._order)]
        finally:
            self._timer = None
            if self._order:
                self._arm()

    def _drain(self, there: dict[Watched, None]) -> None:
        while there:  # one that is due may end others
            watched = next(iter(there))
            self.forget(watched)
            try:
                watched.due()
            except Exception as error:
                # It must not cost the others their time-outs.
                self._loop.call_exception_handler(
                    {"message": f"a time-out failed: {watched!r}", "exception": error}
                )
