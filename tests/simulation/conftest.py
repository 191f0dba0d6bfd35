"""A simulated node on a real socket, a client for it, and waiting with a deadline."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest

from olla.simulation.server import NodeOptions, SimulatedNode

TIME_SCALE = 0.001
"""A load of two seconds takes 2 ms."""

Starter = Callable[..., "asyncio.Future[SimulatedNode]"]
DEADLINE_SECONDS = 5.0


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., object]]:
    """Start nodes with these options; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def started(*models: str, **options: object) -> SimulatedNode:
            options.setdefault("time_scale", TIME_SCALE)
            names = models or ("llama3.2:latest", "nomic-embed-text:latest")
            made = NodeOptions(models=names, **options)  # type: ignore[arg-type]
            return await stack.enter_async_context(SimulatedNode(made))

        yield started


@pytest.fixture
async def node(start: Callable[..., object]) -> SimulatedNode:
    """A fast node with llama3.2 and nomic-embed-text."""
    return await start()  # type: ignore[misc, no-any-return]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with a connection of its own for each request."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
def until() -> Callable[[Callable[[], object]], object]:
    """Wait until something is true, for as long as is decent."""

    async def wait(true: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not true():
                await asyncio.sleep(0.002)

    return wait
