"""Store keys, and revoke a key together with the keys that it created.

Rights are checked elsewhere.
"""

from typing import Any

from sqlalchemy import Row, Text, cast, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from olla.access.keys import Key
from olla.dialects.dialect import Right
from olla.store import MakerRevoked
from olla.store.connections import Connections
from olla.store.schema import key_revision, keys

__all__ = ["KeyTable"]

_ID_MAX = 2**31 - 1


class KeyTable:
    """The keys. Every method raises `StoreError` if the database fails."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def create(self, key: Key) -> Key:
        """Store a key and return it with its id. `key.id` is ignored.

        Raises:
            MakerRevoked: the key that creates it has been revoked.
            StoreError: also if a key with this digest exists.
        """
        values = {
            **{name: getattr(key, name) for name in ("digest", "shown", "name", "owner", "tier")},
            "rights": sorted(right.value for right in key.rights),
            "models": list(key.models),
            "endpoints": list(key.endpoints),
            **{name: getattr(key, name) for name in ("created", "expires", "revoked")},
            "made_by": key.made_by or None,
        }
        maker = _number(key.made_by)
        async with self._connections.writing() as connection:
            await _in_turn(connection)
            if maker is not None:
                found = await connection.execute(select(keys.c.revoked).where(keys.c.id == maker))
                row = found.one_or_none()
                if row is None or row.revoked is not None:
                    raise MakerRevoked(f"the key {maker} is revoked")
            made = await connection.execute(insert(keys).values(values).returning(keys))
            row = made.one()
            await connection.execute(_CHANGED)
        return _key_of(row)

    async def every(self) -> list[Key]:
        """Return all keys, including revoked and expired ones, oldest first."""
        return await self.find()

    async def find(
        self, *, owner: str | None = None, id: str | None = None, made_by: str | None = None
    ) -> list[Key]:
        """Return the keys of an owner, with an id, or created by a maker, oldest first."""
        query = select(keys).order_by(keys.c.id)
        if owner is not None:
            query = query.where(keys.c.owner == owner)
        if made_by is not None:
            query = query.where(keys.c.made_by == made_by)
        if id is not None:
            number = _number(id)
            if number is None:
                return []
            query = query.where(keys.c.id == number)
        async with self._connections.reading() as connection:
            return [_key_of(row) for row in await connection.execute(query)]

    async def revoke(
        self, id: str, at: float, *, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key at `at` (Unix seconds), and every key that it created, directly or
        indirectly.

        Returns the key, followed by the keys revoked with it now. Keys that were revoked before
        keep their time. Returns nothing if the key does not exist, or is not of the given `owner`
        or maker.
        """
        number = _number(id)
        if number is None:
            return ()
        those = [keys.c.id == number]
        those += [] if owner is None else [keys.c.owner == owner]
        those += [] if made_by is None else [keys.c.made_by == made_by]
        async with self._connections.writing() as connection:
            await _in_turn(connection)
            if (await connection.execute(select(keys.c.id).where(*those))).one_or_none() is None:
                return ()
            tree = select(keys.c.id).where(keys.c.id == number).cte("made", recursive=True)
            # UNION, not UNION ALL: it ends even if rows edited by hand form a loop of makers.
            tree = tree.union(select(keys.c.id).where(keys.c.made_by == cast(tree.c.id, Text)))
            done = await connection.execute(
                update(keys)
                .where(keys.c.id.in_(select(tree.c.id)), keys.c.revoked.is_(None))
                .values(revoked=at)
                .returning(keys)
            )
            ended = sorted(map(_key_of, done), key=lambda each: int(each.id))
            if ended:
                await connection.execute(_CHANGED)
            first = (await connection.execute(select(keys).where(*those))).one()
        return (_key_of(first), *(each for each in ended if each.id != str(number)))

    async def revision(self) -> int:
        """Return a number that grows with every change of a key by any process."""
        async with self._connections.reading() as connection:
            value: int = (await connection.execute(select(key_revision.c.value))).scalar_one()
        return value


async def _in_turn(connection: AsyncConnection) -> None:
    """Wait until no other transaction changes keys. Otherwise one could create a key while another
    revokes its maker, and neither would see the other. SQLite has only one writer at a time."""
    await connection.execute(select(key_revision.c.value).with_for_update())


_CHANGED = update(key_revision).values(value=key_revision.c.value + 1)


def _number(id: str) -> int | None:
    """Return the number that an id of this store stands for."""
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
        *(row.created, row.expires, row.revoked, row.made_by or ""),
    )
