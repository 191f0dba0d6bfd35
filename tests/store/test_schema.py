"""The tables are what the migrations make."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from olla.settings.store_url import read_url
from olla.store.connections import Connections
from olla.store.database import Store
from olla.store.schema import metadata


async def test_a_migrated_database_is_what_the_schema_says(url: str, store: Store) -> None:
    """Alembic, asked what it would change, finds nothing."""

    def differences(connection: Connection) -> Any:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return compare_metadata(context, metadata)

    connections = Connections(read_url(url), 10.0)
    async with connections.reading() as connection:
        assert await connection.run_sync(differences) == []
    await connections.close()
