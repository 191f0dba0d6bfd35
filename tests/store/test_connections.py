"""Transactions are whole, have a time limit, and survive a server that was started anew."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from olla.settings.store_url import read_url
from olla.store import StoreError
from olla.store.connections import Connections
from olla.store.database import Store
from tests.store.cluster import Cluster
from tests.store.conftest import Open
from tests.store.test_keys import key
from tests.store.test_usage import row


async def test_sqlite_is_set_up_for_many_readers_and_one_writer(
    sqlite_url: str, store_of_sqlite: Store
) -> None:
    """WAL, synced at checkpoints, foreign keys checked, five seconds to wait for another."""
    connections = Connections(read_url(sqlite_url), 10.0)
    found = {}
    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
        async with connections.reading() as connection:
            found[name] = (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
    await connections.close()
    expected = {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 5000}
    assert found == expected


@pytest.fixture
async def store_of_sqlite(sqlite_url: str, opened: Open) -> Store:
    """An open store in SQLite."""
    return await opened(sqlite_url)


async def test_a_transaction_that_fails_leaves_nothing(url: str, store: Store) -> None:
    """What was written before the failure is taken back."""
    connections = Connections(read_url(url), 10.0)

    async def fail() -> None:
        async with connections.writing() as connection:
            await connection.execute(text("UPDATE key_revision SET value = 7"))
            await connection.execute(text("SELECT * FROM no_such_table"))

    with pytest.raises(StoreError, match="no_such_table"):
        await fail()
    await connections.close()
    assert await store.keys.revision() == 0


async def test_a_transaction_ends_in_time(url: str, store: Store) -> None:
    """Whoever waits longer than it may gets an error, and the next is not held up by it."""
    connections = Connections(read_url(url), 0.05)
    with pytest.raises(StoreError, match="no answer in time"):
        async with connections.writing():
            await asyncio.Event().wait()
    await connections.close()
    assert await store.keys.create(key(1))


async def test_a_frozen_server_holds_nobody_up(cluster: Cluster, postgres_url: str) -> None:
    """A call ends in time although no answer comes, and works again when the server does."""
    store = await Store.open(postgres_url, patience=0.3)
    try:
        cluster.freeze(True)
        try:
            with pytest.raises(StoreError, match="no answer in time"):
                await store.keys.every()
        finally:
            cluster.freeze(False)
        assert await store.keys.create(key(1))
    finally:
        await store.close()


async def test_a_server_that_was_started_anew_is_used_again(
    cluster: Cluster, postgres_url: str, opened: Open
) -> None:
    """The connections of before are not handed out."""
    store = await opened(postgres_url)
    await store.keys.create(key(1))
    cluster.stop()
    try:
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.keys.every()
    finally:
        cluster.start()
    assert len(await store.keys.every()) == 1


async def test_another_program_that_writes_is_waited_for(
    tmp_path: Path, store_of_sqlite: Store
) -> None:
    """For as long as SQLite waits; readers do not wait at all."""
    other = sqlite3.connect(tmp_path / "store" / "olla.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(store_of_sqlite.keys.create(key(1)))
        assert await store_of_sqlite.keys.every() == []
        assert not writing.done()
        other.execute("ROLLBACK")
        assert (await writing).id == "1"
    finally:
        other.close()


async def test_a_full_disk_is_told(tmp_path: Path, store_of_sqlite: Store) -> None:
    """What does not fit is not written, not even in part; what was there can be read."""
    await store_of_sqlite.usage.add([row(0)])
    await store_of_sqlite.close()
    connections = Connections(read_url(f"sqlite:///{tmp_path}/store/olla.db"), 10.0)

    async def fill() -> None:
        async with connections.writing() as connection:
            await connection.execute(text("PRAGMA max_page_count = 30"))
            insert = text("INSERT INTO usage_content VALUES (:id, 1.0, 'a', :text, :text)")
            for number in range(1000):
                await connection.execute(insert, {"id": number, "text": "x" * 4000})

    with pytest.raises(StoreError, match="full; make room"):
        await fill()
    async with connections.reading() as connection:
        count = text("SELECT count(*) FROM usage_content")
        assert (await connection.execute(count)).scalar_one() == 0
    await connections.close()
