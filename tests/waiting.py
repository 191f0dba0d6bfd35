"""Waiting for conditions that have no event: one polling loop for all tests."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["unchanged", "until"]

POLL_SECONDS = 0.002

T = TypeVar("T")
Condition = Callable[[], object | Awaitable[object]]


async def until(condition: Condition, seconds: float = 10.0) -> float:
    """Poll a condition (a function or a coroutine function) until it holds.

    Returns the seconds that this took; raises TimeoutError after `seconds`.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.timeout(seconds):
        while not await _value(condition):
            await asyncio.sleep(POLL_SECONDS)
    return loop.time() - start


async def unchanged(value: Callable[[], T], seconds: float = 0.1) -> T:
    """Wait until a value has stayed the same for `seconds`, and return it."""
    loop = asyncio.get_running_loop()
    last, since = value(), loop.time()
    while loop.time() - since < seconds:
        await asyncio.sleep(POLL_SECONDS)
        if (now := value()) != last:
            last, since = now, loop.time()
    return last


async def _value(condition: Condition) -> object:
    found = condition()
    return await found if inspect.isawaitable(found) else found
