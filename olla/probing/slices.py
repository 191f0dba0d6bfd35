"""Run long work in slices, so that the event loop can run in between.

To parse or merge a list of ten thousand models takes tenths of a second, however fast each entry
is. Such work is a generator that yields where it may be interrupted.
"""

import asyncio
from collections.abc import Generator
from typing import TypeVar

__all__ = ["Slices"]

T = TypeVar("T")
_SLICE = 0.004
"""Seconds of work between two iterations of the loop."""


class Slices:
    """Runs one piece of work at a time.

    Two at a time would use two slices in each iteration of the loop, and a hundred clients that
    request a long list at once would still stall it.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, work: Generator[None, None, T]) -> T:
        """Run the work and return its result. A slice ends at the first yield after 4 ms.

        Raises:
            Exception: any exception of the work.
        """
        clock = asyncio.get_running_loop().time
        async with self._lock:
            until = clock() + _SLICE
            while True:
                try:
                    next(work)
                except StopIteration as done:
                    found: T = done.value
                    return found
                if clock() >= until:
                    await asyncio.sleep(0)
                    until = clock() + _SLICE
