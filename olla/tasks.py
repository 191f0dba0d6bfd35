"""Tasks whose failures reach their owner.

asyncio keeps the exception of a task until it is asked for. When nobody asks, a request that waits
for what the task was to do waits for ever, and the log has nothing until the task is collected.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["joined", "report", "spawn"]

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
