"""Connect to the database: transactions with a time limit, and readable errors."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import sleep
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from olla.settings.store_url import PostgresServer, SqliteFile
from olla.store import StoreError
from olla.store.errors import POSTGRES_ERRORS, in_words

__all__ = ["Connections", "make_sqlite_file"]

_CONNECT_SECONDS_MAX = 5.0
_BUSY_SECONDS_MAX = 5.0
_CLOSE_SECONDS_MAX = 5.0
_CONNECTIONS_MAX = 5
_TRIES = 100
_AGAIN = 0.05
"""Seconds between two attempts to switch a file to WAL mode while others do the same."""
_PRAGMAS = ("foreign_keys=ON", "synchronous=NORMAL")
_ERRORS: tuple[type[Exception], ...] = (
    *(SQLAlchemyError, sqlite3.Error, *POSTGRES_ERRORS, OSError),
    *(UnicodeError, OverflowError),  # raised by drivers for values that they cannot store
)


class Connections:
    """A pool of connections to one database."""

    def __init__(self, place: SqliteFile | PostgresServer, patience: float) -> None:
        """`patience`: the time limit of a transaction, in seconds."""
        self.shown = place.shown
        self._patience = patience
        self._engine = (
            _sqlite_engine(place) if isinstance(place, SqliteFile) else _postgres_engine(place)
        )
        self.dialect = self._engine.dialect

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that reads.

        Raises:
            StoreError: the database is unavailable, rejects the transaction, or takes too long.
        """
        async with self._transaction(self._engine, self._patience) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, patience: float | None = None) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that may write. It is committed as a whole or not at all.

        Raises:
            StoreError: see `reading`. If the connection breaks during the commit, the outcome is
                unknown.
        """
        engine = self._engine.execution_options(writing=True)
        async with self._transaction(engine, patience or self._patience) as connection:
            yield connection

    async def close(self) -> None:
        """Close all connections. Those that do not close in time are left to the operating
        system."""
        with suppress(TimeoutError, *_ERRORS):
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(
        self, engine: AsyncEngine, patience: float
    ) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(patience), engine.begin() as connection:
                yield connection
        except _ERRORS as error:  # TimeoutError is an OSError
            raise StoreError(f"{self.shown}: {in_words(error)}") from None


def make_sqlite_file(file: SqliteFile) -> None:
    """Create the file and its folder, readable by this user only, unless they exist, and switch the
    file to WAL mode. Blocks.

    Raises:
        OSError: they cannot be created.
        sqlite3.Error: the file is not a database, or cannot be used.
    """
    file.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with suppress(FileExistsError):
        # An existing file is not opened: closing it would release the locks that this process holds
        # through SQLite. SQLite creates its other files with the same mode.
        os.close(os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    # Unlike otherwise, SQLite does not wait for other processes while it changes the mode. The
    # change is needed only once.
    for left in reversed(range(_TRIES)):
        connection = sqlite3.connect(file.path, timeout=_BUSY_SECONDS_MAX, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not left or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        finally:
            connection.close()
        sleep(_AGAIN)


def _sqlite_engine(file: SqliteFile) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(file.path)),
        # Transactions begin where this code says, not where the driver guesses.
        connect_args={"isolation_level": None, "timeout": _BUSY_SECONDS_MAX},
        pool_size=_CONNECTIONS_MAX,
        max_overflow=0,
        hide_parameters=True,
    )

    def prepare(connection: Any, _: object) -> None:
        try:
            cursor = connection.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()
        except BaseException:
            connection.close()  # the pool does not manage it yet
            raise

    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes fails if another one has written in between. A
        # transaction that may write therefore takes the write lock first.
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "begin", begin)
    return engine


def _postgres_engine(server: PostgresServer) -> AsyncEngine:
    connect: dict[str, Any] = {"timeout": _CONNECT_SECONDS_MAX}
    if server.sslmode is not None:
        connect["ssl"] = server.sslmode
    if server.host is not None:
        connect["host"] = server.host
    return create_async_engine(
        URL.create(
            "postgresql+asyncpg",
            username=server.user,
            password=server.password,
            port=server.port,
            database=server.database,
        ),
        connect_args={**connect, "server_settings": {"application_name": "olla"}},
        pool_size=_CONNECTIONS_MAX,
        max_overflow=0,
        pool_pre_ping=True,  # detects that the server has been restarted
        hide_parameters=True,
    )
