"""The process that is measured: runs each station of a request again and again, with marks between.

Meant to run under callgrind, which writes out its counts at each call of `getsid`: a C function
that nothing else here calls. A run without it prints nothing and measures nothing.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Callable

from benchmarks.proxy.budget import Harness

__all__ = ["REPEATS", "WARM_UP"]

REPEATS = 200
WARM_UP = 100


def mark() -> None:
    """Have callgrind write out what it has counted since the last mark."""
    os.getsid(0)


def measure(call: Callable[[], object]) -> None:
    """Run one station between two marks, when it is warm."""
    for _ in range(WARM_UP):
        call()
    gc.collect()
    mark()
    for _ in range(REPEATS):
        call()
    mark()


async def main() -> None:
    """Each station, and the whole request first."""
    harness = Harness()
    await harness.start()
    for _ in range(WARM_UP):
        harness.request()
        await asyncio.sleep(0)
    gc.disable()
    found = {"the whole request": harness.request, **harness.stations()}
    measure(lambda: None)
    for call in found.values():
        measure(call)
    print("\n".join(found))


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(main())
