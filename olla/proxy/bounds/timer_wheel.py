"""A timer wheel: coarse shared timers for timeouts that rarely expire.

A loop timer for each attempt costs a microsecond to set and cancel, for limits of minutes that are
hardly ever reached. Here each entry is put into the slot of its deadline and removed when it is
done. The loop has one timer, for the earliest slot. An entry that was active in the meantime moves
to a later slot when its slot fires: with a limit of ten minutes, a stream of an hour is checked six
times.
"""

import asyncio
import heapq
from math import ceil, floor
from typing import Protocol

__all__ = ["TimerWheel", "Watched"]

_SLOTS_A_SECOND = 20
_FAR = 20.0
"""Seconds. Nearer deadlines are at most one slot late, farther ones at most a second."""
_EARLY = 0.001
"""Seconds by which the loop may fire a timer early: uvloop counts whole milliseconds."""


class Watched(Protocol):
    """An object with a deadline."""

    slot: float
    """The slot that holds it, 0 if it is not watched. Only `TimerWheel` writes it."""

    def due(self) -> None:
        """Called at the deadline that was given to `watch`."""
        ...


class TimerWheel:
    """Holds all deadlines of one router, in the loop's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Use the timers of `loop`, by default the running loop."""
        self._loop = loop or asyncio.get_running_loop()
        # Slots are whole numbers: with slots in seconds, float rounding put an entry into the slot
        # that was being drained.
        self._slots: dict[float, dict[Watched, None]] = {}
        self._order: list[float] = []
        self._drained = 0.0
        """The last slot that was drained or is being drained. It accepts no more entries."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_slot = 0.0

    def __len__(self) -> int:
        """Return the number of watched entries."""
        return sum(map(len, self._slots.values()))

    def watch(self, watched: Watched, deadline: float) -> None:
        """Call `due` at `deadline` (in the loop's time) or slightly later.

        An entry that is added while a slot is drained is never due before the loop's next
        iteration.
        """
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
        entries = self._slots.get(slot)
        if entries is None:
            entries = self._slots[slot] = {}
            heapq.heappush(self._order, slot)
            if self._timer is None or slot < self._timer_slot:
                self._arm()
        entries[watched] = None

    def forget(self, watched: Watched) -> None:
        """Stop watching an entry. Does nothing if it is not watched."""
        if watched.slot:
            del self._slots[watched.slot][watched]
            watched.slot = 0.0

    def close(self) -> None:
        """Stop the wheel: no entry becomes due any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_slot = self._order[0]
        self._timer = self._loop.call_at(self._timer_slot / _SLOTS_A_SECOND, self._fire)

    def _fire(self) -> None:
        self._timer_slot = 0.0  # entries added while draining must not arm the timer
        self._drained = float(floor((self._loop.time() + _EARLY) * _SLOTS_A_SECOND))
        try:
            while self._order and self._order[0] <= self._drained:
                self._drain(self._slots[self._order[0]])
                del self._slots[heapq.heappop(self._order)]
        finally:
            self._timer = None
            if self._order:
                self._arm()

    def _drain(self, entries: dict[Watched, None]) -> None:
        while entries:  # an entry's callback may remove other entries
            watched = next(iter(entries))
            self.forget(watched)
            try:
                watched.due()
            except Exception as error:
                # The other entries must still time out.
                self._loop.call_exception_handler(
                    {"message": f"timeout callback failed: {watched!r}", "exception": error}
                )
