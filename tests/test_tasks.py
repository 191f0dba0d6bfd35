"""Tasks whose failures reach their owner."""

import asyncio
import gc
from typing import Any

import pytest

from olla.tasks import report, spawn


class Reported:
    """What the loop's exception handler was told."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.contexts.append(told))


async def failing() -> None:
    """Work with a fault in it."""
    await asyncio.sleep(0)
    raise ValueError("a fault")


async def test_a_failure_reaches_the_owner_and_nobody_else() -> None:
    """It is the owner who answers and logs; the loop has nothing more to complain of."""
    reported = Reported()
    failures: asyncio.Queue[Exception] = asyncio.Queue()
    task = spawn(failing(), failures.put_nowait)
    assert isinstance(await failures.get(), ValueError)
    assert task.done()
    del task
    gc.collect()
    assert reported.contexts == []


async def test_without_an_owner_a_failure_is_reported_at_once() -> None:
    """Not when the task is collected some day."""
    reported = Reported()
    task = spawn(failing())
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (told,) = reported.contexts
    assert isinstance(told["exception"], ValueError)


async def test_neither_an_end_nor_a_cancellation_is_a_failure() -> None:
    """And the task's result is there for who waits for it."""
    failures: list[Exception] = []

    async def four() -> int:
        return 4

    async def for_ever() -> None:
        await asyncio.Event().wait()

    assert await spawn(four(), failures.append) == 4
    task = spawn(for_ever(), failures.append)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert failures == []


async def test_an_owner_that_fails_as_well_is_reported() -> None:
    """Both faults are in the log: the first as the context of the second."""
    reported = Reported()

    def worse(error: Exception) -> None:
        raise KeyError("worse") from error

    await asyncio.wait([spawn(failing(), worse)])
    await asyncio.sleep(0)
    (told,) = reported.contexts
    assert isinstance(told["exception"], KeyError)


async def test_a_report_goes_to_the_loop_s_handler() -> None:
    """Which logs it, with where it came from."""
    reported = Reported()
    report(ValueError("a fault"))
    assert "failed" in reported.contexts[0]["message"]
