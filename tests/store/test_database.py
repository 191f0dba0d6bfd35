"""A store opens, or says why not."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from olla.store.database import Store, StoreError, default_url, exists
from tests.store.cluster import Cluster
from tests.store.conftest import Open


async def failure_of(url: str) -> str:
    """What opening says."""
    with pytest.raises(StoreError) as caught:
        await Store.open(url)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_store_is_nobody_elses_to_read(tmp_path: Path, opened: Open) -> None:
    """Folder and files are the user's alone, those too that SQLite adds."""
    url = f"sqlite:///{tmp_path}/a/b/olla.db"
    assert not exists(url)
    store = await opened(url)
    await store.keys.revision()
    assert exists(url)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700
    files = list((tmp_path / "a/b").iterdir())
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_a_relative_file_is_looked_for_where_olla_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Open
) -> None:
    """So a configuration may keep its store beside itself."""
    monkeypatch.chdir(tmp_path)
    await opened("sqlite:///olla.db")
    assert (tmp_path / "olla.db").exists()


async def test_the_default_can_be_opened(tmp_path: Path, opened: Open) -> None:
    """A home is all it takes."""
    store = await opened(default_url({"HOME": str(tmp_path)}))
    assert store.url_shown == f"sqlite:///{tmp_path}/.local/state/olla/olla.db"


async def test_the_url_is_shown_without_the_password(
    cluster: Cluster, postgres_url: str, opened: Open
) -> None:
    """The rest of it is."""
    store = await opened(postgres_url.replace("olla@", "olla:geheim@"))
    assert store.url_shown == postgres_url.replace("olla@", "olla:***@")


async def test_what_is_no_url_is_refused() -> None:
    """With what to write instead."""
    assert "write sqlite:///relative/path.db" in await failure_of("mysql://me:geheim@db/olla")


async def test_a_server_that_is_not_there_is_told(free_port: int) -> None:
    """Nobody listens; the host has no address."""
    said = await failure_of(f"postgresql://me:geheim@127.0.0.1:{free_port}/olla")
    expected = f"postgresql://me:***@127.0.0.1:{free_port}/olla: cannot be reached: "
    assert said.startswith(expected)
    assert "Connection refused" in said
    assert "not known" in await failure_of("postgresql://me:geheim@nowhere.invalid/olla")


async def test_a_wrong_password_is_told(cluster: Cluster, postgres_url: str) -> None:
    """Whose it is, but not what it was."""
    await cluster.execute(
        "DO $$ BEGIN CREATE USER guarded PASSWORD 'right'; EXCEPTION WHEN others THEN END $$"
    )
    said = await failure_of(postgres_url.replace("olla@", "guarded:geheim@"))
    assert 'password authentication failed for user "guarded"; check user and password' in said


async def test_a_database_that_is_not_there_is_told(cluster: Cluster) -> None:
    """With what to do about it."""
    said = await failure_of(cluster.url("nothing"))
    assert 'database "nothing" does not exist; create it' in said


def a_directory(path: Path) -> None:
    """In place of the file."""
    path.mkdir()


def another_file(path: Path) -> None:
    """Something that is no database."""
    path.write_text("a letter, and long enough for that" * 100)


def another_database(path: Path) -> None:
    """A database with a table of one of olla's names."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE keys (a)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (a_directory, "Is a directory"),
        (another_file, "file is not a database; the file belongs to something else"),
        (another_database, "table keys already exists"),
    ],
)
async def test_what_is_no_store_is_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    """Whatever stands in the store's place is neither used nor changed."""
    path = tmp_path / "olla.db"
    make(path)
    assert says in await failure_of(f"sqlite:///{path}")
    if make is another_file:
        assert path.read_text().startswith("a letter")
    if make is another_database:
        connection = sqlite3.connect(path)
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        connection.close()
        assert tables == [("keys",)]


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """By its name; a file where a folder should be, too."""
    (tmp_path / "file").touch()
    assert "Not a directory" in await failure_of(f"sqlite:///{tmp_path}/file/a/olla.db")
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # what is forbidden is not forbidden to root
    try:
        said = await failure_of(f"sqlite:///{tmp_path}/store/olla.db")
    finally:
        if root:
            os.seteuid(0)
    assert f"'{tmp_path}/store' cannot be reached: Permission denied" in said
