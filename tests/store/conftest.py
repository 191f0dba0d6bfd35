"""Stores in both databases."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from olla.store.database import Store
from tests.store.cluster import INSTALL, Cluster, binaries

Open = Callable[[str], Awaitable[Store]]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running PostgreSQL server."""
    folder = binaries()
    if folder is None:
        if "postgresql" in os.environ.get("OLLA_TEST_REQUIRE", ""):
            pytest.fail(INSTALL)
        pytest.skip(INSTALL)
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
async def postgres_url(cluster: Cluster) -> str:
    """The URL of an empty PostgreSQL database."""
    return cluster.url(await cluster.make_database())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/store/olla.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of either kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    made: str = request.getfixturevalue(name)
    return made


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens stores, and closes them after the test."""
    stores: list[Store] = []

    async def open_it(url: str) -> Store:
        stores.append(await Store.open(url))
        return stores[-1]

    yield open_it
    for store in stores:
        await store.close()


@pytest.fixture
async def store(url: str, opened: Open) -> Store:
    """An open store in an empty database."""
    return await opened(url)
