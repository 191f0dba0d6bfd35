"""Run long work in short steps without blocking the event loop.

Parsing a body of 100 MB takes 100 ms or more, in steps of one millisecond. A thread would not help,
because the parser holds the interpreter's lock. So a few steps run in each iteration of the loop,
and several bodies take turns.
"""

import asyncio
from collections.abc import Generator
from typing import TypeVar

from olla.clock import Clock

__all__ = ["SLICE", "TimeSlices"]

T = TypeVar("T")

SLICE = 0.002
"""Seconds of work in one iteration of the loop, which is the delay added to other requests."""


class TimeSlices:
    """Shares the loop's time among all bodies that are being parsed."""

    __slots__ = ("_clock", "_turn")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turn = asyncio.Lock()  # first come, first served

    async def run(self, steps: Generator[None, None, T]) -> T:
        """Run `steps` to the end and return their result.

        Raises:
            Exception: any exception raised by `steps`.
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
                    result: T = done.value
                    return result
                await asyncio.sleep(0)  # keep the lock until all other callbacks have run once
