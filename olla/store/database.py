"""Open and close the store. The tables define its content."""

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
    """An open store with the schema version of this code.

    Errors of drivers are raised as `StoreError`.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.url_shown = connections.shown
        """The URL without its password."""
        self.keys = KeyTable(connections)
        self.usage = UsageTable(connections)

    @classmethod
    async def open(cls, url: str, *, patience: float = 10.0) -> Self:
        """Open the store at `url`, and upgrade its schema.

        A missing SQLite file is created, with its folder. `patience`: the time limit of a
        transaction, in seconds.

        Raises:
            StoreError: the URL is invalid, the database cannot be used, or it is newer than this
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
        """Close the store. Running transactions are not awaited."""
        await self._connections.close()
