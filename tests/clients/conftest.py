"""Provide one fleet for all client tests of a module."""

from collections.abc import Iterator

import pytest

from tests.routers import MANAGE, ThreadedFleet, threaded_fleet


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """Three simulated nodes behind a router that lets callers change them."""
    with threaded_fleet(extra=MANAGE) as running:
        yield running


@pytest.fixture(params=["/olla/ollama", ""], ids=["prefix", "root"])
def base(request: pytest.FixtureRequest, fleet: ThreadedFleet) -> str:
    """The router's address as an Ollama server: under the prefix, and at the root."""
    return fleet.url + str(request.param)
