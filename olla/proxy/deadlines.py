"""Coarse timers, shared by all that wait for something that will most likely not happen.

A timer of its own for each attempt costs a microsecond to set and to cancel, for limits of
minutes that are hardly ever reached. Here whoever waits is put into the slot of the moment at
which it has to be looked at, and taken out when it is done; the loop has one timer for the
earliest slot. Whoever was heard of meanwhile is put into a later slot when its slot comes: a
stream of an hour is looked at six times with a limit of ten minutes.
"""

import asyncio
import heapq
from math import ceil
from typing import Protocol

__all__ = ["Deadlines", "Watched"]

_FINE = 0.05
_COARSE = 1.0
"""Seconds by which a deadline is late at most, near and far."""
_FAR = 20.0


class Watched(Protocol):
    """Something with a deadline."""

    slot: float
    """Where it is put: the business of `Deadlines`; 0 while it is nowhere."""

    def due(self) -> None:
        """Its time has come, as far as was known when it was put in."""
        ...


class Deadlines:
    """All deadlines of one router, in the loop's time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[float, dict[Watched, None]] = {}
        self._order: list[float] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __len__(self) -> int:
        """How many are watched."""
        return sum(map(len, self._slots.values()))

    def watch(self, watched: Watched, deadline: float) -> None:
        """Call `due` at `deadline` (the loop's seconds), or a little later."""
        if deadline - self._loop.time() > _FAR:
            slot = float(ceil(deadline / _COARSE)) * _COARSE
        else:
            slot = ceil(deadline / _FINE) * _FINE
        if watched.slot:
            if watched.slot == slot:
                return
            self.forget(watched)
        watched.slot = slot
        there = self._slots.get(slot)
        if there is None:
            there = self._slots[slot] = {}
            heapq.heappush(self._order, slot)
            if self._timer is None or slot < self._timer_at:
                self._arm()
        there[watched] = None

    def forget(self, watched: Watched) -> None:
        """It need not be looked at any more."""
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
        self._timer_at = self._order[0]
        self._timer = self._loop.call_at(self._timer_at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._order and self._order[0] <= now + 0.001:
            slot = heapq.heappop(self._order)
            there = self._slots[slot]
            while there:  # one that is due may end others
                watched = next(iter(there))
                self.forget(watched)
                watched.due()
            del self._slots[slot]
        if self._order and self._timer is None:
            self._arm()
