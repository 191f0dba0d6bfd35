"""A Redis for each module, empty for each test, and routers that share limits through it."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.redis_server import RedisServer, redis_server
from tests.state.sharing import Router


@pytest.fixture(scope="module")
def running_redis() -> Iterator[RedisServer]:
    """One that was started for this module."""
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(running_redis: RedisServer) -> Iterator[RedisServer]:
    """It runs, and is empty."""
    running_redis.ask("FLUSHALL")
    yield running_redis
    running_redis.restart()


@pytest.fixture
async def router(redis: RedisServer) -> AsyncIterator[Callable[..., Awaitable[Router]]]:
    """Makes routers, which are started, and stopped after the test."""
    names = itertools.count()

    async with AsyncExitStack() as stack:

        async def made(**options: Any) -> Router:
            options = {"url": redis.url, "name": f"r{next(names)}"} | options
            one = Router(**options)
            await one.shared.start()
            stack.push_async_callback(one.shared.stop)
            return one

        yield made
