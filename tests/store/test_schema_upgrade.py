"""A database becomes what the code knows, once, whoever comes first."""

import asyncio
import logging
import sys

import pytest
from alembic import command
from sqlalchemy import text

from olla.access.keys import Key
from olla.settings.store_url import SqliteFile, read_url
from olla.store import StoreError
from olla.store.connections import Connections, make_sqlite_file
from olla.store.database import Store
from olla.store.schema_upgrade import migration_config
from tests.store.conftest import Open


async def test_opening_again_changes_nothing(url: str, opened: Open) -> None:
    """What is in the store stays."""
    first = await opened(url)
    revision = await first.keys.revision()
    await first.close()
    again = await opened(url)
    assert await again.keys.revision() == revision


async def test_routers_that_start_at_once_make_one_store(url: str, opened: Open) -> None:
    """One makes it, the others wait for it."""
    stores = await asyncio.gather(*(opened(url) for _ in range(6)))
    assert [await store.keys.revision() for store in stores] == [0] * 6


async def test_processes_that_start_at_once_make_one_store(url: str) -> None:
    """So it is with processes that know nothing of each other."""
    opening = (
        "import asyncio, sys\n"
        "from olla.store.database import Store\n"
        "async def main():\n"
        "    store = await Store.open(sys.argv[1])\n"
        "    print(await store.keys.revision())\n"
        "    await store.close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", opening, url),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for _ in range(3)
    ]
    said = [(await process.communicate())[0] for process in processes]
    assert said == [b"0\n"] * 3


async def test_a_newer_database_is_refused(url: str, store: Store) -> None:
    """An older olla would write what the newer does not expect."""
    connections = Connections(read_url(url), 10.0)
    async with connections.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await connections.close()
    with pytest.raises(StoreError, match=r"newer olla \(its version is 9999"):
        await Store.open(url)


async def test_keys_from_before_the_makers_were_kept_stay_good(url: str, opened: Open) -> None:
    """A database of the first version is brought up to date with what is in it."""
    connections = Connections(read_url(url), 10.0)
    if (path := read_url(url)) and isinstance(path, SqliteFile):
        make_sqlite_file(path)
    async with connections.writing() as connection:
        await connection.run_sync(lambda raw: command.upgrade(migration_config(raw), "0001"))
        await connection.execute(
            text(
                "INSERT INTO keys (digest, shown, name, owner, tier, rights, models, endpoints, "
                "created) VALUES (:digest, 'oa-x', 'old', '', 'standard', '[\"list\"]', '[]', "
                "'[]', 5)"
            ),
            {"digest": b"d" * 32},
        )
    await connections.close()
    store = await opened(url)
    (old,) = await store.keys.every()
    assert (old.name, old.made_by) == ("old", "")
    made = await store.keys.create(Key("", b"e" * 32, "oa-y", "new", made_by=old.id))
    assert [each.id for each in await store.keys.revoke(old.id, 9.0)] == [old.id, made.id]


async def test_migrations_leave_logging_as_it_is(
    sqlite_url: str, opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alembic is not given the program's log to set up, and writes nothing to the terminal."""
    before = (list(logging.root.handlers), logging.root.level)
    await opened(sqlite_url)
    assert (list(logging.root.handlers), logging.root.level) == before
    assert capsys.readouterr() == ("", "")
