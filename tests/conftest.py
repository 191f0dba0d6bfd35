"""What holds for every test."""

import asyncio
import inspect
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop
from hypothesis import HealthCheck, settings

# Machines are shared: how fast examples are made says nothing about the code.
settings.register_profile(
    "olla", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("olla")

LEAVING_SECONDS_MAX = 2.0
"""How long tasks that were told to end may take to do so."""


@pytest.fixture(scope="session", autouse=True)
def no_proxies() -> Iterator[None]:
    """Clients obey these variables, and every server here is on this machine."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            environment.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's own store is touched, and none is there at first."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OLLA_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """A test that is a coroutine ends with no task but its own: set up first, checked last."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("watched_loop")


@pytest.fixture
async def watched_loop() -> AsyncIterator[None]:
    """See `no_task_left`."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=LEAVING_SECONDS_MAX)
    assert not left, f"still running: {left}"


@pytest.fixture
def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, LoopFactory]:
    """What touches bytes runs on both event loops: they differ in when they write and what they
    raise. The rest runs on asyncio's own."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.parent.name == "wire":
        factories["uvloop"] = uvloop.new_event_loop
    return factories
