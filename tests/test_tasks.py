"""Tests of tasks whose failures reach their owner, and of blocking calls in threads."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from olla.tasks import in_thread, report, spawn


class Reported:
    """Collects the contexts passed to the loop's exception handler."""

    def __init__(self) -> None:
        self.contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.contexts.append(context)
        )


async def failing() -> None:
    """Fail after one iteration of the loop."""
    await asyncio.sleep(0)
    raise ValueError("a fault")


async def test_a_failure_reaches_only_the_owner() -> None:
    """The owner handles and logs it, so the loop does not report it again."""
    reported = Reported()
    failures: asyncio.Queue[Exception] = asyncio.Queue()
    task = spawn(failing(), failures.put_nowait)
    assert isinstance(await failures.get(), ValueError)
    assert task.done()
    del task
    gc.collect()
    assert reported.contexts == []


async def test_without_an_owner_a_failure_is_reported_immediately() -> None:
    """Not only when the task is garbage-collected."""
    reported = Reported()
    task = spawn(failing())
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (context,) = reported.contexts
    assert isinstance(context["exception"], ValueError)


async def test_a_result_and_a_cancellation_are_not_failures() -> None:
    """A caller that awaits the task gets its result."""
    failures: list[Exception] = []

    async def four() -> int:
        return 4

    async def forever() -> None:
        await asyncio.Event().wait()

    assert await spawn(four(), failures.append) == 4
    task = spawn(forever(), failures.append)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert failures == []


async def test_a_failing_owner_is_reported() -> None:
    """Both errors are reported: the first one as the cause of the second."""
    reported = Reported()

    def worse(error: Exception) -> None:
        raise KeyError("worse") from error

    await asyncio.wait([spawn(failing(), worse)])
    await asyncio.sleep(0)
    (context,) = reported.contexts
    assert isinstance(context["exception"], KeyError)


async def test_a_report_goes_to_the_exception_handler_of_the_loop() -> None:
    """The handler logs it with its origin."""
    reported = Reported()
    report(ValueError("a fault"))
    assert "failed" in reported.contexts[0]["message"]


async def test_a_blocking_call_does_not_block_the_loop() -> None:
    """Results and exceptions reach the caller."""
    release = threading.Event()
    waiting = asyncio.ensure_future(in_thread(release.wait, 10.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    release.set()
    assert await waiting is True
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_hung_calls_block_neither_others_nor_the_exit() -> None:
    """Each call has a separate daemon thread, which the process does not wait for."""
    never = threading.Event()
    hanging = [asyncio.ensure_future(in_thread(never.wait)) for _ in range(50)]
    await asyncio.sleep(0)
    assert await in_thread(divmod, 7, 2) == (3, 1)
    for each in hanging:
        each.cancel()
    await asyncio.wait(hanging)
    threads = [each for each in threading.enumerate() if each.name == "wait"]
    assert len(threads) >= 50
    assert all(each.daemon for each in threads)
    never.set()
    for each in threads:
        each.join(10)


def test_a_result_after_the_end_of_the_loop_is_dropped() -> None:
    """No caller waits for it, and its thread raises no exception."""
    release = threading.Event()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_thread(release.wait)

    asyncio.run(leave())
    (thread,) = [each for each in threading.enumerate() if each.name == "wait"]
    release.set()
    thread.join(10)
    assert not thread.is_alive()
