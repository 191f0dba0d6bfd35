"""Runs long work in slices, so that the event loop turns between them.

A list of ten thousand models takes tenths of a second to read or to merge, however fast each entry
is. Such work is a generator that yields where it may be interrupted.
"""

import asyncio
from collections.abc import Generator
from typing import TypeVar

__all__ = ["Slices"]

T = TypeVar("T")
_SLICE = 0.004
"""Seconds of work between two turns of the loop."""


class Slices:
    """Runs one piece of work at a time.

    Two at a time would take two slices of each turn of the loop, and a hundred clients that ask
    for a long list at once would stall it all the same.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, work: Generator[None, None, T]) -> T:
        """What the work returns. It must yield often: a slice ends at the first yield after 4 ms.

        Raises:
            Exception: whatever the work raises.
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
