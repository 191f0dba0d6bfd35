"""How late the event loop is: the sign that something blocks it.

Sets a timer again and again and looks how late it came. Does not say who blocked the loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from olla.clock import Clock, SystemClock

__all__ = ["LoopLag", "Schedule", "Timer"]


class Timer(Protocol):
    """A call that was scheduled and can be taken back."""

    def cancel(self) -> None:
        """Take it back."""
        ...


Schedule = Callable[[float, Callable[[], None]], Timer]
"""Calls something after so many seconds: a running loop's `call_later`."""


class LoopLag:
    """Measures lag every `interval` seconds and keeps the last `samples` of them.

    Without a `schedule`, timers are those of the loop in which it is started.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        schedule: Schedule | None = None,
        *,
        interval: float = 0.5,
        samples: int = 60,
    ) -> None:
        self._clock = clock or SystemClock()
        self._schedule = schedule
        self._interval = interval
        self._samples: deque[float] = deque(maxlen=samples)
        self._due = 0.0
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin to measure. A second call changes nothing."""
        if self._timer is None:
            self._arm()

    def stop(self) -> None:
        """Cease to measure."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def worst(self) -> float:
        """The largest lag among the samples kept, in seconds."""
        return max(self._samples, default=0.0)

    def _arm(self) -> None:
        self._due = self._clock.now() + self._interval
        schedule = self._schedule or asyncio.get_running_loop().call_later
        self._timer = schedule(self._interval, self._fire)

    def _fire(self) -> None:
        self._samples.append(max(0.0, self._clock.now() - self._due))
        self._arm()
