"""Tests of the store's URL and its default."""

from pathlib import Path

import pytest

from olla.settings.store_url import (
    PostgresServer,
    SqliteFile,
    checked_url,
    default_url,
    exists,
    read_url,
)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///olla.db", "olla.db"),
        ("sqlite:///state/olla.db", "state/olla.db"),
        ("sqlite:////var/lib/olla/100% a.db", "/var/lib/olla/100% a.db"),
    ],
)
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    """Three slashes and a relative path, or four and an absolute one; the path is not decoded."""
    place = read_url(url)
    assert place == SqliteFile(Path(path))
    assert place.shown == url


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a folder named ~."""
    monkeypatch.setenv("HOME", "/home/me")
    assert read_url("sqlite:///~/olla.db") == SqliteFile(Path("/home/me/olla.db"))


@pytest.mark.parametrize(
    ("url", "server", "shown"),
    [
        (
            "postgresql://me:se%2Fcret@db.example:5433/olla",
            PostgresServer("db.example", 5433, "me", "se/cret", "olla"),
            "postgresql://me:***@db.example:5433/olla",
        ),
        (
            "postgres://[::1]/olla?sslmode=require",
            PostgresServer("::1", database="olla", sslmode="require"),
            "postgresql://[::1]/olla?sslmode=require",
        ),
        (
            "postgresql:///olla?host=/run/postgresql",
            PostgresServer("/run/postgresql", database="olla"),
            "postgresql:///olla?host=/run/postgresql",
        ),
    ],
)
def test_a_postgresql_url_names_a_server(url: str, server: PostgresServer, shown: str) -> None:
    """Both schemes are in use; the password is never shown."""
    place = read_url(url)
    assert place == server
    assert place.shown == shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "sqlite:////absolute/path.db"),
        ("olla.db", "sqlite:////absolute/path.db"),
        ("mysql://me:geheim@db/olla", "postgresql://user:password@host/database"),
        ("sqlite://olla.db", "has no file name"),
        ("sqlite:///", "has no file name"),
        ("sqlite:///:memory:", "has no file name"),
        ("sqlite:///olla.db?mode=ro", "has options"),
        ("postgresql:olla", "scheme"),
        ("postgresql://me:geheim@db", "has no database name"),
        ("postgresql://me:ge/heim@db/olla", "percent-encode"),
        ("postgresql://me:geheim@db/olla?sslmode=geheim", "must be one of disable"),
        (
            "postgresql://me:geheim@db/olla?password=geheim",
            "only have the options host and sslmode",
        ),
        ("postgresql://me:geheim@db/olla?geheim", "cannot be parsed"),
    ],
)
def test_an_invalid_store_url_is_rejected(url: str, message: str) -> None:
    """The message says what to write, and never repeats a password."""
    with pytest.raises(ValueError, match=message) as caught:
        checked_url(url)
    assert "heim" not in str(caught.value)


def test_a_valid_url_passes() -> None:
    """No error is raised."""
    checked_url("postgresql://me:geheim@db/olla")


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"OLLA_HOME": "/o", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "sqlite:////o/olla.db"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "sqlite:////x/olla/olla.db"),
        ({"OLLA_HOME": "", "HOME": "/h"}, "sqlite:////h/.local/state/olla/olla.db"),
    ],
)
def test_the_default_store_is_in_the_state_directory(environ: dict[str, str], url: str) -> None:
    """`OLLA_HOME`, else the XDG state directory, else its default."""
    assert default_url(environ) == url


def test_a_sqlite_store_exists_if_its_file_exists(tmp_path: Path) -> None:
    """A PostgreSQL store always counts as existing."""
    url = f"sqlite:///{tmp_path}/olla.db"
    assert not exists(url)
    (tmp_path / "olla.db").touch()
    assert exists(url)
    assert exists("postgresql://db/olla")
