"""Upgrade a database to the schema version of this code.

Several routers may start at once: the first one upgrades while the others wait.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from olla.store import StoreError, migrations
from olla.store.connections import Connections

__all__ = ["migrate", "migration_config"]

_MIGRATING_SECONDS_MAX = 120.0
_LOCK = 0x6F6C6C61
"""The key of PostgreSQL's advisory lock: "olla" in ASCII."""


async def migrate(connections: Connections) -> None:
    """Upgrade the database to the newest version, if it is older.

    Raises:
        StoreError: the database is newer than this code, or cannot be changed.
    """
    async with connections.reading() as connection:
        if await connection.run_sync(_is_current):
            return
    # SQLite: the write transaction is the lock.
    async with connections.writing(_MIGRATING_SECONDS_MAX) as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await connection.run_sync(_upgrade)


def migration_config(connection: Connection) -> Config:
    """Return Alembic's configuration for a connection, without a file."""
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    if not _is_current(connection):
        command.upgrade(migration_config(connection), "head")


def _is_current(connection: Connection) -> bool:
    scripts = ScriptDirectory.from_config(migration_config(connection))
    known = [script.revision for script in scripts.walk_revisions()]  # newest first
    found = MigrationContext.configure(connection).get_current_heads()
    newer = set(found) - set(known)
    if newer:
        raise StoreError(
            f"the database was made by a newer olla (its version is {', '.join(sorted(newer))}, "
            f"this olla knows up to {known[0]}); run that one, or name another database"
        )
    return list(found) == known[:1]
