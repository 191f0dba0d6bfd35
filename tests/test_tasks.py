"""Tasks whose failures reach their owner, and calls that may block."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from olla.tasks import in_thread, report, spawn


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


async def test_a_call_that_blocks_holds_nobody_up() -> None:
    """The loop goes on meanwhile; results and exceptions come back."""
    go_on = threading.Event()
    waiting = asyncio.ensure_future(in_thread(go_on.wait, 10.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    assert await waiting is True
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_calls_that_hang_hold_up_neither_others_nor_the_end() -> None:
    """However many: each has a thread of its own, which the process does not wait for."""
    for_ever = threading.Event()
    hanging = [asyncio.ensure_future(in_thread(for_ever.wait)) for _ in range(50)]
    await asyncio.sleep(0)
    assert await in_thread(divmod, 7, 2) == (3, 1)
    for each in hanging:
        each.cancel()
    await asyncio.wait(hanging)
    threads = [each for each in threading.enumerate() if each.name == "wait"]
    assert len(threads) >= 50
    assert all(each.daemon for each in threads)
    for_ever.set()
    for each in threads:
        each.join(10)


def test_what_a_call_returns_after_the_loop_is_lost() -> None:
    """Nobody waits for it any more, and nothing raises in its thread."""
    go_on = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_thread(go_on.wait)

    asyncio.run(leave())
    (thread,) = [each for each in threading.enumerate() if each.name == "wait"]
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
