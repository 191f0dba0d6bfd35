"""Parse the store's URL, and find the default location.

Reads no configuration and opens no database.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from olla.settings.extras import require_extra

__all__ = [
    "PostgresServer",
    "SqliteFile",
    "checked_url",
    "default_url",
    "exists",
    "read_url",
]

_EXPECTED = (
    "write sqlite:///relative/path.db, sqlite:////absolute/path.db or "
    "postgresql://user:password@host/database"
)
_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql", "postgres")
_OPTIONS = {"host", "sslmode"}
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class SqliteFile(msgspec.Struct, frozen=True):
    """A SQLite database."""

    path: Path

    @property
    def shown(self) -> str:
        """The URL for display."""
        return f"{_SQLITE}{self.path}"


class PostgresServer(msgspec.Struct, frozen=True):
    """A database on a PostgreSQL server.

    Fields that are None are left to the driver, which reads the environment as libpq does
    (`PGUSER`, `PGPASSWORD`, `PGPASSFILE` and so on). `host` may be a folder with the server's
    socket.
    """

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = None
    database: str | None = None
    sslmode: str | None = None

    @property
    def shown(self) -> str:
        """The URL for display, with `***` in place of the password."""
        user = quote(self.user or "") + (":***" if self.password else "")
        host = self.host or ""
        socket, host = ("", f"[{host}]" if ":" in host else host) if host[:1] != "/" else (host, "")
        port = "" if self.port is None else f":{self.port}"
        options = "&".join(
            f"{name}={value}"
            for name, value in (("host", socket), ("sslmode", self.sslmode))
            if value
        )
        return (
            f"postgresql://{user}{'@' if user else ''}{host}{port}/{quote(self.database or '')}"
            f"{'?' if options else ''}{options}"
        )


def read_url(text: str) -> SqliteFile | PostgresServer:
    """Parse a store's URL.

    Raises:
        ValueError: the URL is invalid. The message says what to write, and never repeats the URL,
            which may contain a password.
    """
    scheme = text.partition("://")[0]
    if scheme == "sqlite":
        return _read_sqlite(text)
    if scheme in _POSTGRES and "://" in text:
        return _read_postgres(text)
    raise ValueError(f"the store URL has an unknown scheme; {_EXPECTED}")


def checked_url(text: str) -> None:
    """Validate a store's URL.

    Raises:
        ValueError: as for `read_url`.
    """
    read_url(text)


def default_url(environ: Mapping[str, str]) -> str:
    """Return the URL of the default store.

    This is `$OLLA_HOME/olla.db`, else `$XDG_STATE_HOME/olla/olla.db`, else
    `~/.local/state/olla/olla.db`.
    """
    if environ.get("OLLA_HOME"):
        folder = Path(environ["OLLA_HOME"])
    elif environ.get("XDG_STATE_HOME"):
        folder = Path(environ["XDG_STATE_HOME"]) / "olla"
    else:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
        folder = home / ".local" / "state" / "olla"
    return f"{_SQLITE}{folder / 'olla.db'}"


def exists(url: str) -> bool:
    """Return whether the store exists: its file for SQLite; always true for PostgreSQL.

    Raises:
        ValueError: as for `read_url`.
    """
    place = read_url(url)
    return isinstance(place, PostgresServer) or place.path.exists()


def _read_sqlite(text: str) -> SqliteFile:
    path = text.removeprefix(_SQLITE)
    if path == text or not path or path == ":memory:" or path.endswith("/"):
        raise ValueError(f"the store URL has no file name; {_EXPECTED}")
    if "?" in path or "\0" in path:
        raise ValueError(f"the store URL has options, which SQLite does not take; {_EXPECTED}")
    try:
        return SqliteFile(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(
            f"the store URL names a home directory that does not exist; {_EXPECTED}"
        ) from None


def _read_postgres(text: str) -> PostgresServer:
    try:
        parts = urlsplit(text)
        port = parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:  # its message may repeat a part of the password
        raise ValueError(
            "the store URL cannot be parsed; percent-encode special characters in user and "
            "password (%2F for /, %40 for @, %23 for #)"
        ) from None
    if parts.fragment or set(options) - _OPTIONS:
        raise ValueError(f"the store URL may only have the options host and sslmode; {_EXPECTED}")
    mode = options.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise ValueError(f"sslmode in the store URL must be one of {', '.join(_SSL_MODES)}")
    database = unquote(parts.path.removeprefix("/"))
    if not database:
        raise ValueError(f"the store URL has no database name; {_EXPECTED}")
    require_extra("postgresql", "a store on PostgreSQL")
    return PostgresServer(
        options.get("host") or parts.hostname,
        port,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
        database,
        mode,
    )
