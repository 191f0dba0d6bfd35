"""Runs work that has many short steps beside everything else the event loop does.

Reading a body of a hundred megabytes takes a tenth of a second and more, in steps of a millisecond.
A thread would not help: what reads holds the interpreter's lock. So a few steps run in each turn of
the loop, and of several bodies each gets a turn after the other.
"""

import asyncio
from collections.abc import Generator
from typing import TypeVar

from olla.clock import Clock

__all__ = ["SLICE", "TimeSlices"]

T = TypeVar("T")

SLICE = 0.002
"""Seconds of work in one turn of the loop: what a small request takes longer meanwhile."""


class TimeSlices:
    """Shares the loop's time among bodies that are being read. One for all requests."""

    __slots__ = ("_clock", "_turn")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()  # first come, first served

    async def run(self, steps: Generator[None, None, T]) -> T:
        """What `steps` come to.

        Raises:
            whatever they raise.
        """
        while True:
            async with self._turn:
                until = self._clock.now() + SLICE
                try:
                    while True:
                        next(steps)
                        if self._clock.now() >= until:
                            break
                except StopIteration as done:
                    found: T = done.value
                    return found
                await asyncio.sleep(0)  # the turn is over when everything else had its own
