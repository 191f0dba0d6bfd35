"""Connections to the database: transactions with a time limit, and errors in words."""

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
"""Seconds between two tries to have a file write ahead, while others do the same."""
_PRAGMAS = ("foreign_keys=ON", "synchronous=NORMAL")
_ERRORS: tuple[type[Exception], ...] = (
    *(SQLAlchemyError, sqlite3.Error, *POSTGRES_ERRORS, OSError),
    *(UnicodeError, OverflowError),  # a value that a driver cannot take
)


class Connections:
    """A pool of connections to one database."""

    def __init__(self, place: SqliteFile | PostgresServer, patience: float) -> None:
        """`patience`: how many seconds a transaction may take."""
        self.shown = place.shown
        self._patience = patience
        self._engine = (
            _sqlite_engine(place) if isinstance(place, SqliteFile) else _postgres_engine(place)
        )
        self.dialect = self._engine.dialect

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that reads.

        Raises:
            StoreError: the database cannot be reached, does not do it, or takes too long.
        """
        async with self._transaction(self._engine, self._patience) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, patience: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write: all of it is kept, or nothing.

        Raises:
            StoreError: as `reading`. In the one case that the connection breaks while the
                database confirms, it is not known which of the two it was.
        """
        engine = self._engine.execution_options(writing=True)
        async with self._transaction(engine, patience or self._patience) as connection:
            yield connection

    async def close(self) -> None:
        """Close all connections; what does not close in time is left to the system."""
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
    """Make the file and its folder, for nobody but this user, where they are missing, and have it
    write ahead. Blocks.

    Raises:
        OSError: they cannot be made.
        sqlite3.Error: it is no database, or cannot be used.
    """
    file.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with suppress(FileExistsError):
        # Never opened where it is there: closing it would undo the locks that this process holds
        # by SQLite. SQLite gives its other files the same mode.
        os.close(os.open(file.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    # SQLite does not wait for others when it changes the mode, as it does otherwise; once it is
    # changed, nobody has to do it again.
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
        # Transactions begin where we say, not where the driver guesses.
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
            connection.close()  # the pool does not know it yet
            raise

    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes then would fail when somebody else has
        # written in between; one that is to write waits for its turn.
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
        pool_pre_ping=True,  # a server that was started anew is noticed before it is asked
        hide_parameters=True,
    )
