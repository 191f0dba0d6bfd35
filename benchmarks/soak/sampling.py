"""Sample the router's leases, connections, tasks, files and memory over HTTP."""

import re
from statistics import median

import aiohttp
import msgspec

__all__ = ["Sample", "flat", "sample"]


class Sample(msgspec.Struct, frozen=True):
    """One sample of the process. Sizes are bytes."""

    in_flight: float
    waiting: float
    connections: float
    tasks: int
    files: int
    rss: int


async def sample(session: aiohttp.ClientSession, base: str) -> Sample:
    """Take a sample."""
    async with session.get(f"{base}/metrics") as response:
        metrics = await response.text()
    async with session.get(f"{base}/internal/process") as response:
        process = await response.json()
    return Sample(
        _sum(metrics, "olla_requests_in_flight"),
        _sum(metrics, "olla_queue_length"),
        _sum(metrics, "olla_open_connections"),
        process["tasks"],
        process["open_files"],
        process["rss_bytes"],
    )


def flat(sizes: list[int], tolerance: float) -> tuple[bool, float]:
    """Return whether memory has stopped growing, and by which share it grew.

    This compares the median of the last third with that of the middle third.
    """
    third = len(sizes) // 3
    if not third:
        return True, 0.0
    growth = median(sizes[-third:]) / median(sizes[third : 2 * third]) - 1
    return growth <= tolerance, growth


def _sum(metrics: str, name: str) -> float:
    return sum(
        float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", metrics, re.M)
    )
