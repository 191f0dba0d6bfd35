"""What breaks, and when: drawn from a seed, so that a run can be repeated.

Each trouble strikes one node for some seconds. Two nodes at most are in trouble at a time, so
that there is always somebody who could serve.
"""

import asyncio
import random
from collections import Counter

import aiohttp
import msgspec

__all__ = ["Breaking", "Trouble", "draw"]

_INFERENCE: tuple[str, ...] = ()
_ALL = ("*",)
_STATUSES = (401, 403, 404, 429, 500, 502, 503, 504)


class Trouble(msgspec.Struct, frozen=True):
    """One node's trouble: the faults that are switched on there, and for how many seconds."""

    name: str
    faults: dict[str, dict[str, object]]
    seconds: float


def draw(rng: random.Random) -> Trouble:
    """The next trouble."""
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
        return Trouble(kind, {"refuse": {"seconds": seconds / 0.02}}, seconds)
    if kind == "absurd_lists":  # long enough to be probed
        return Trouble(kind, {kind: {}}, seconds + 3.0)
    if kind == "frozen":
        return Trouble(kind, {"hang": {"paths": _ALL}}, seconds + 3.0)
    fault: dict[str, object] = {"probability": probability, "after": after}
    if kind == "status":
        fault["status"] = rng.choice(_STATUSES)
        return Trouble(f"status {fault['status']}", {kind: fault}, seconds)
    if kind == "slow":
        fault["seconds"] = rng.uniform(1.0, 30.0)
    return Trouble(kind, {kind: fault}, seconds)


class Breaking:
    """Breaks nodes until it is cancelled, and mends them all at the end."""

    def __init__(self, urls: list[str], seed: int, at_once: int = 2) -> None:
        self._urls = urls
        self._rng = random.Random(seed)
        self._at_once = at_once
        self.happened: Counter[str] = Counter()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Break them."""
        free = list(range(len(self._urls)))
        places = asyncio.Semaphore(self._at_once)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await places.acquire()
                await asyncio.sleep(self._rng.uniform(0.2, 1.0))
                node = free.pop(self._rng.randrange(len(free)))
                trouble = draw(self._rng)
                self.happened[trouble.name] += 1

                async def strike(node: int = node, trouble: Trouble = trouble) -> None:
                    try:
                        await self._set(session, node, trouble.faults)
                        await asyncio.sleep(trouble.seconds)
                        await self._set(session, node, {})
                    finally:
                        free.append(node)
                        places.release()

                task = asyncio.create_task(strike())
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
        for _ in range(100):  # one that refuses connections takes none for a while
            try:
                async with session.put(url, json=faults) as response:
                    response.raise_for_status()
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.2)
