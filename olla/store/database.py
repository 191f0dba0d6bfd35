"""The store: opening and closing it. What is in it, the tables say."""

import sqlite3
from typing import Self

from olla.settings.store_url import SqliteFile, default_url, exists, read_url
from olla.store import StoreError
from olla.store.connections import Connections, make_sqlite_file
from olla.store.errors import in_words
from olla.store.keys import KeyTable
from olla.store.schema_upgrade import migrate
from olla.store.usage import UsageTable
from olla.tasks import in_thread

__all__ = ["Store", "StoreError", "default_url", "exists"]


class Store:
    """An open store, of the version that this code knows.

    Every driver's error comes out as a `StoreError`.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.url_shown = connections.shown
        """The URL without the password."""
        self.keys = KeyTable(connections)
        self.usage = UsageTable(connections)

    @classmethod
    async def open(cls, url: str, *, patience: float = 10.0) -> Self:
        """Open the store at `url`, and bring it to the version of this code.

        A SQLite file is made where it is missing, with its folder. `patience`: how many seconds
        a transaction may take.

        Raises:
            StoreError: the URL is none, the database cannot be used, or it is newer than this
                code.
        """
        try:
            place = read_url(url)
        except ValueError as error:
            raise StoreError(str(error)) from None
        if isinstance(place, SqliteFile):
            try:
                await in_thread(make_sqlite_file, place)
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"{place.shown}: {in_words(error)}") from None
        connections = Connections(place, patience)
        try:
            await migrate(connections)
        except BaseException:
            await connections.close()
            raise
        return cls(connections)

    async def close(self) -> None:
        """Close it. What is under way elsewhere is not waited for."""
        await self._connections.close()
