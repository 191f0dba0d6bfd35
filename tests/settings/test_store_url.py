"""Where the store is."""

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
    """Three slashes and a relative path, or four and an absolute one; taken literally."""
    place = read_url(url)
    assert place == SqliteFile(Path(path))
    assert place.shown == url


def test_home_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants a folder of the name ~."""
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
    ("url", "says"),
    [
        ("", "sqlite:////absolute/path.db"),
        ("olla.db", "sqlite:////absolute/path.db"),
        ("mysql://me:geheim@db/olla", "postgresql://user:password@host/database"),
        ("sqlite://olla.db", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///olla.db?mode=ro", "has options"),
        ("postgresql:olla", "scheme"),
        ("postgresql://me:geheim@db", "names no database"),
        ("postgresql://me:ge/heim@db/olla", "percent-encoded"),
        ("postgresql://me:geheim@db/olla?sslmode=geheim", "must be one of disable"),
        ("postgresql://me:geheim@db/olla?password=geheim", "host and sslmode only"),
        ("postgresql://me:geheim@db/olla?geheim", "cannot be read"),
    ],
)
def test_what_is_no_url_of_a_store_is_refused(url: str, says: str) -> None:
    """The message says what to write, and gives no password away."""
    with pytest.raises(ValueError, match=says) as caught:
        checked_url(url)
    assert "heim" not in str(caught.value)


def test_a_good_url_passes() -> None:
    """Nothing comes back."""
    checked_url("postgresql://me:geheim@db/olla")


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"OLLA_HOME": "/o", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "sqlite:////o/olla.db"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "sqlite:////x/olla/olla.db"),
        ({"OLLA_HOME": "", "HOME": "/h"}, "sqlite:////h/.local/state/olla/olla.db"),
    ],
)
def test_a_store_is_where_state_belongs_by_default(environ: dict[str, str], url: str) -> None:
    """olla's own folder, the desktop's, or what stands for that."""
    assert default_url(environ) == url


def test_there_is_a_store_when_its_file_is_there(tmp_path: Path) -> None:
    """A server's database is taken for granted."""
    url = f"sqlite:///{tmp_path}/olla.db"
    assert not exists(url)
    (tmp_path / "olla.db").touch()
    assert exists(url)
    assert exists("postgresql://db/olla")
