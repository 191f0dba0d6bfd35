"""Inject faults into nodes, drawn from a seed so that a run can be repeated.

Each fault affects one node for some seconds. At most two nodes fail at a time, so that another one
can always serve.
"""

import asyncio
import random
from collections import Counter

import aiohttp
import msgspec

__all__ = ["FaultInjector", "NodeFault", "draw"]

_INFERENCE: tuple[str, ...] = ()
_ALL = ("*",)
_STATUSES = (401, 403, 404, 429, 500, 502, 503, 504)


class NodeFault(msgspec.Struct, frozen=True):
    """The faults to turn on at one node, and for how many seconds."""

    name: str
    faults: dict[str, dict[str, object]]
    seconds: float


def draw(rng: random.Random) -> NodeFault:
    """Draw the next fault."""
    seconds = rng.uniform(1.0, 4.0)
    probability = rng.choice((0.1, 0.3, 1.0))
    after = rng.randrange(6)
    kind = rng.choice(
        (
            *("refuse", "hang", "frozen", "reset_before", "reset_mid", "hang_mid", "bad_framing"),
            *("end_early", "short_body", "status", "status", "slow", "garbage", "garbage_body"),
            "absurd_lists",
        )
    )
    if kind == "refuse":
        return NodeFault(kind, {"refuse": {"seconds": seconds / 0.02}}, seconds)
    if kind == "absurd_lists":  # long enough for a probe to see it
        return NodeFault(kind, {kind: {}}, seconds + 3.0)
    if kind == "frozen":
        return NodeFault(kind, {"hang": {"paths": _ALL}}, seconds + 3.0)
    options: dict[str, object] = {"probability": probability, "after": after}
    if kind == "status":
        options["status"] = rng.choice(_STATUSES)
        return NodeFault(f"status {options['status']}", {kind: options}, seconds)
    if kind == "slow":
        options["seconds"] = rng.uniform(1.0, 30.0)
    return NodeFault(kind, {kind: options}, seconds)


class FaultInjector:
    """Injects faults into nodes until it is canceled, and then clears them all."""

    def __init__(self, urls: list[str], seed: int, at_once: int = 2) -> None:
        self._urls = urls
        self._rng = random.Random(seed)
        self._at_once = at_once
        self.injected: Counter[str] = Counter()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Inject faults until canceled."""
        free = list(range(len(self._urls)))
        places = asyncio.Semaphore(self._at_once)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await places.acquire()
                await asyncio.sleep(self._rng.uniform(0.2, 1.0))
                node = free.pop(self._rng.randrange(len(free)))
                fault = draw(self._rng)
                self.injected[fault.name] += 1

                async def inject(node: int = node, fault: NodeFault = fault) -> None:
                    try:
                        await self._set(session, node, fault.faults)
                        await asyncio.sleep(fault.seconds)
                        await self._set(session, node, {})
                    finally:
                        free.append(node)
                        places.release()

                task = asyncio.create_task(inject())
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for node in range(len(self._urls)):
                await self._set(session, node, {})

    async def _set(self, session: aiohttp.ClientSession, node: int, faults: object) -> None:
        url = f"{self._urls[node]}/_simulation/faults"
        for _ in range(100):  # a node that refuses connections cannot be reached for a while
            try:
                async with session.put(url, json=faults) as response:
                    response.raise_for_status()
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
