"""Run the production router with a ticker in its event loop, which detects when the loop is
blocked.

A thread reads commands from standard input and answers on standard output, so that they cost the
loop nothing: `reset` starts a measurement, `read` ends it.
"""

import asyncio
import ctypes
import json
import sys
import threading
import time
from pathlib import Path

import uvloop

from olla.app import serve
from olla.settings import load

_TICK = 0.001


class Ticker:
    """Records the largest gap between two ticks in seconds: by the clock, and by the CPU time of
    the loop's thread."""

    def __init__(self) -> None:
        self.gap = self.work = 0.0
        self.ticks = 0

    async def run(self) -> None:
        """Tick until canceled."""
        last, used = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_TICK)
            now, spent = time.perf_counter(), time.thread_time()
            self.gap = max(self.gap, now - last)
            self.work = max(self.work, spent - used)
            self.ticks += 1
            last, used = now, spent


def _memory(field: str) -> int:
    """Return a field of the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _answer(ticker: Ticker) -> None:
    """Answer commands until standard input ends."""
    trim = ctypes.CDLL(None).malloc_trim
    base = 0
    for line in sys.stdin:
        if line == "reset\n":
            trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
            base = _memory("VmRSS")
            ticker.gap = ticker.work = 0.0
            ticker.ticks = 0
            figures: dict[str, float] = {}
        else:
            figures = {
                "gap": ticker.gap,
                "work": ticker.work,
                "ticks": ticker.ticks,
                "memory": max(0, _memory("VmHWM") - base),
            }
        print(json.dumps(figures), flush=True)


async def _main(config: Path) -> None:
    ticker = Ticker()
    running = asyncio.get_running_loop().create_task(ticker.run())
    threading.Thread(target=_answer, args=(ticker,), daemon=True).start()
    try:
        await serve(load(config, {}))
    finally:
        running.cancel()


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1])))
