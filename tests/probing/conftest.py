"""Fixtures for scripted servers and for probers that stop with the test."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog

from olla.clock import SystemClock
from olla.fleet.endpoint import EndpointSpec
from olla.probing.prober import Prober
from tests.probing.scripted import ScriptedServer


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[dict[str, Any]], Awaitable[ScriptedServer]]]:
    """Return a function that starts a server with the given answers."""
    async with AsyncExitStack() as stack:

        async def started(answers: dict[str, Any]) -> ScriptedServer:
            return await stack.enter_async_context(ScriptedServer(answers))

        yield started


@pytest.fixture
async def probe() -> AsyncIterator[Callable[..., Awaitable[Prober]]]:
    """Return a function that starts a prober of the given endpoints."""
    async with AsyncExitStack() as stack:

        async def started(*specs: EndpointSpec, list_interval: float = 600.0) -> Prober:
            prober = Prober(
                specs,
                SystemClock(),
                rng=random.Random(1),
                list_interval=list_interval,
                logger=structlog.get_logger(),
            )
            await prober.start()
            stack.push_async_callback(prober.stop)
            return prober

        yield started
