"""Run each step of a request repeatedly, with marks in between: the process that is measured.

Run it under callgrind, which dumps its counts at each call of `getsid`, a C function that no other
code here calls. Without callgrind it measures nothing.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Callable

from benchmarks.proxy.budget import Harness

__all__ = ["REPEATS", "ROUNDS", "WARM_UP"]

REPEATS = 100
WARM_UP = 100
ROUNDS = 3
"""Measurements of each step. The lowest counts, because a background thread or a growing table may
add up to a million instructions to one: a step then differed by 20 % between runs of the same
code."""


def mark() -> None:
    """Make callgrind dump its counts since the last mark."""
    os.getsid(0)


def measure(call: Callable[[], object]) -> None:
    """Warm one step up, and run it between two marks, several times."""
    for _ in range(WARM_UP):
        call()
    for _ in range(ROUNDS):
        gc.collect()
        mark()
        for _ in range(REPEATS):
            call()
        mark()


async def main() -> None:
    """Measure the whole request, then each step."""
    harness = Harness()
    await harness.start()
    for _ in range(WARM_UP):
        harness.request()
        await asyncio.sleep(0)
    gc.disable()
    steps = {"the whole request": harness.request, **harness.steps()}
    measure(lambda: None)
    for call in steps.values():
        measure(call)
    print("\n".join(steps))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(main())
