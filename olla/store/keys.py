"""Keys, as they are kept. Who may do what with them is not decided here."""

from typing import Any

from sqlalchemy import Row, insert, select, update

from olla.access.keys import Key
from olla.dialects.dialect import Right
from olla.store.connections import Connections
from olla.store.schema import key_revision, keys

__all__ = ["KeyTable"]

_ID_MAX = 2**31 - 1


class KeyTable:
    """The keys. Every method raises `StoreError` when the database does not do it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def create(self, key: Key) -> Key:
        """Keep a key; what comes back has its id. `key.id` is not looked at.

        Raises:
            StoreError: also when there is a key of this digest already.
        """
        values = {
            **{name: getattr(key, name) for name in ("digest", "shown", "name", "owner", "tier")},
            "rights": sorted(right.value for right in key.rights),
            "models": list(key.models),
            "endpoints": list(key.endpoints),
            **{name: getattr(key, name) for name in ("created", "expires", "revoked")},
        }
        async with self._connections.writing() as connection:
            made = await connection.execute(insert(keys).values(values).returning(keys))
            row = made.one()
            await connection.execute(_CHANGED)
        return _key_of(row)

    async def every(self) -> list[Key]:
        """All keys, also those that are revoked or have expired; oldest first."""
        return await self.find()

    async def find(self, *, owner: str | None = None, id: str | None = None) -> list[Key]:
        """The keys of an owner, or of an id, or of both; oldest first."""
        query = select(keys).order_by(keys.c.id)
        if owner is not None:
            query = query.where(keys.c.owner == owner)
        if id is not None:
            number = _number(id)
            if number is None:
                return []
            query = query.where(keys.c.id == number)
        async with self._connections.reading() as connection:
            return [_key_of(row) for row in await connection.execute(query)]

    async def revoke(self, id: str, at: float, *, owner: str | None = None) -> Key | None:
        """End a key at `at` (Unix seconds); one that is revoked stays so since the first time.

        None when there is no such key, or `owner` is given and it is somebody else's.
        """
        number = _number(id)
        if number is None:
            return None
        those = [keys.c.id == number] + ([] if owner is None else [keys.c.owner == owner])
        async with self._connections.writing() as connection:
            done = await connection.execute(
                update(keys).where(*those, keys.c.revoked.is_(None)).values(revoked=at)
            )
            if done.rowcount:
                await connection.execute(_CHANGED)
            row = (await connection.execute(select(keys).where(*those))).one_or_none()
        return None if row is None else _key_of(row)

    async def revision(self) -> int:
        """A number that grows with every change of a key, by whichever process."""
        async with self._connections.reading() as connection:
            value: int = (await connection.execute(select(key_revision.c.value))).scalar_one()
        return value


_CHANGED = update(key_revision).values(value=key_revision.c.value + 1)


def _number(id: str) -> int | None:
    """The number that an id of this store is."""
    if not (id.isascii() and id.isdigit() and len(id) <= 10) or id.startswith("0"):
        return None
    number = int(id)
    return number if number <= _ID_MAX else None


def _key_of(row: Row[Any]) -> Key:
    return Key(
        str(row.id),
        *(row.digest, row.shown, row.name, row.owner, row.tier),
        frozenset(Right(word) for word in row.rights),
        tuple(row.models),
        tuple(row.endpoints),
        *(row.created, row.expires, row.revoked),
    )
