"""Where time comes from.

Everything that needs the time takes a `Clock`, so that tests and the simulated fleet can
decide what time it is. This module does not schedule anything.
"""

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """A source of time."""

    def now(self) -> float:
        """Monotonic time, in seconds from an arbitrary start: for differences and deadlines."""
        ...

    def wall(self) -> float:
        """Unix time, in seconds: for what people and other programs read."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()
