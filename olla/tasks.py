"""Work beside the one that runs: tasks whose failures reach their owner, calls that may block.

asyncio keeps the exception of a task until it is asked for. When nobody asks, a request that waits
for what the task was to do waits for ever, and the log has nothing until the task is collected. Its
pool of threads can be filled by calls that hang, and the process waits for them at its end.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

__all__ = ["in_thread", "joined", "report", "spawn"]

T = TypeVar("T")


def spawn(
    work: Coroutine[Any, Any, T], failed: Callable[[Exception], None] | None = None
) -> asyncio.Task[T]:
    """Run a coroutine as a task in the running loop.

    When it raises, `failed` is called with the exception, in a turn of the loop of its own: it
    answers whoever waits and gives back what the work has taken. Without `failed` the exception
    is reported. A task that is cancelled has not failed. The caller keeps the task, because the
    loop does not.
    """

    def ended(task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            (failed or report)(error)

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(ended)
    return task


def joined(_: Exception) -> None:
    """As `failed` of `spawn`: whoever awaits the task gets its exception, if anybody still does."""


def report(error: Exception) -> None:
    """Hand an exception that nobody else can handle to the loop's handler, which logs it."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a task of the router failed", "exception": error}
    )


def in_thread(call: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
    """What a call that may block returns or raises: to be awaited.

    It runs in a daemon thread of its own, so that calls which hang hold up neither each other nor
    the end of the process. Whoever waits may be cancelled. Not for what is called often (a thread
    costs some 100 µs), nor as often as a peer likes.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    outcome.add_done_callback(_taken)

    def settle(error: BaseException | None, result: T | None) -> None:
        if outcome.done():  # nobody waits any more
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(cast(T, result))

    def run() -> None:
        error: BaseException | None = None
        result: T | None = None
        try:
            result = call(*arguments)
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error, result)

    threading.Thread(target=run, name=getattr(call, "__name__", "call"), daemon=True).start()
    return outcome


def _taken(outcome: "asyncio.Future[Any]") -> None:
    if not outcome.cancelled():
        outcome.exception()  # or asyncio complains where nobody waits any more
