"""Create, list and revoke keys, for every surface that does.

A key is shown once, when it is created. Rights are checked elsewhere.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote

from olla.access.keys import DEFAULT_RIGHTS, SECRET_BYTES, STATIC, Key, form_key, maker_shown
from olla.clock import Clock
from olla.dialects.dialect import Right
from olla.failures import Failed, Failure, Kind
from olla.settings.access import one_of_tiers
from olla.surfaces.responses import iso_time

if TYPE_CHECKING:
    from olla.store.database import Store

__all__ = ["KeyBook", "KeyStore", "id_in", "shown_key", "shown_revoked"]

T = TypeVar("T")
_TEXT_MAX = 100


class KeyStore(Protocol):
    """The owner of the store. All methods raise `Failed` while it is unavailable."""

    async def create(self, key: Key) -> Key:
        """Store a new key, and return it with its id."""
        ...

    async def revoke(
        self, id: str, *, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key, restricted to an owner or maker if given, and the keys that it created.
        Returns nothing if the key does not exist."""
        ...

    async def tried(self, work: "Callable[[Store], Awaitable[T]]") -> T:
        """Return the result of a query."""
        ...


class KeyBook:
    """The keys in the store."""

    def __init__(
        self,
        books: KeyStore,
        clock: Clock,
        tiers: Callable[[], Collection[str]] | None = None,
        endpoints: Callable[[], Collection[str]] | None = None,
    ) -> None:
        """`tiers` and `endpoints` are the existing ones; None accepts any. A key with another tier
        would have no limits, and one for another endpoint could reach none."""
        self._books = books
        self._clock = clock
        self._tiers = tiers
        self._endpoints = endpoints

    async def create(
        self,
        *,
        name: str,
        owner: str = "",
        tier: str = "standard",
        rights: frozenset[Right] = DEFAULT_RIGHTS,
        models: tuple[str, ...] = (),
        endpoints: tuple[str, ...] = (),
        lifetime: float | None = None,
        made_by: str = "",
    ) -> tuple[str, Key]:
        """Create a key: returns the key, which cannot be shown again, and what is stored of it.
        `lifetime` is in seconds, None without expiry. `made_by` is the `mark` of the key that
        creates it.

        Raises:
            Failed: a text is empty, too long or not printable, the tier or endpoint does not exist,
            the
                maker has been revoked, or the store is unavailable.
        """
        for what, text in (("name", name), ("owner", owner), ("tier", tier)):
            if len(text) > _TEXT_MAX or (text and not text.isprintable()):
                message = f"a key's {what} is up to {_TEXT_MAX} printable characters"
                raise Failed(Failure(Kind.BAD_REQUEST, message))
        if not all(each.strip() for each in (*models, *endpoints)):
            message = "an empty name is no model's and no endpoint's; leave it out for all"
            raise Failed(Failure(Kind.BAD_REQUEST, message))
        known = endpoints if self._endpoints is None else self._endpoints()
        for each in endpoints:
            if each not in known:
                message = f"no endpoint is named '{each[:_TEXT_MAX]}'; there are "
                raise Failed(Failure(Kind.BAD_REQUEST, message + ", ".join(sorted(known))))
        tiers = self._tiers() if self._tiers is not None else (tier,)
        if tier not in tiers:
            raise Failed(Failure(Kind.BAD_REQUEST, one_of_tiers(tiers, tier)))
        secret, digest, shown = form_key(secrets.token_bytes(SECRET_BYTES))
        now = self._clock.wall()
        made = await self._books.create(
            Key(
                id="",
                digest=digest,
                shown=shown,
                name=name,
                owner=owner,
                tier=tier,
                rights=rights,
                models=models,
                endpoints=endpoints,
                created=now,
                expires=None if lifetime is None else now + lifetime,
                made_by=made_by,
            )
        )
        return secret, made

    async def keys(self, owner: str | None = None, made_by: str | None = None) -> list[Key]:
        """Return all keys, or those of an owner or maker, including revoked ones.

        Raises:
            Failed: the store is unavailable.
        """
        return await self._books.tried(lambda store: store.keys.find(owner=owner, made_by=made_by))

    async def revoke(
        self, id: str, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key, restricted to an owner or maker if given, and the keys that it created.
        Returns the key first.

        Raises:
            Failed: the key does not exist, or the store is unavailable.
        """
        revoked = await self._books.revoke(id, owner=owner, made_by=made_by)
        if not revoked and id.startswith(STATIC):
            message = f"what begins with {STATIC} stands in the configuration, and ends there: "
            raise Failed(Failure(Kind.NOT_FOUND, f"{message}take it out of access.keys"))
        if not revoked:
            whose = f" of '{owner}'" if owner is not None else ""
            raise Failed(Failure(Kind.NOT_FOUND, f"there is no key{whose} with the id {id[:40]}"))
        return revoked


def id_in(target: str) -> str:
    """Return the id at the end of a request's raw target. An encoded slash is part of the id, so it
    cannot turn the rest into another key's id."""
    return unquote(target.partition("?")[0].rpartition("/")[2])


def shown_key(key: Key) -> dict[str, Any]:
    """Return what may be shown of a key, as JSON. Ids of stored keys are numbers."""
    return {
        "id": _shown_id(key.id),
        "name": key.name,
        "user_id": key.owner,
        "tier": key.tier,
        "prefix": key.shown,
        "operations": sorted(right.value for right in key.rights),
        "models": list(key.models),
        "endpoints": list(key.endpoints),
        "is_active": key.revoked is None,
        "created_at": iso_time(key.created),
        "expires_at": iso_time(key.expires),
        "revoked_at": iso_time(key.revoked),
        "made_by": _shown_id(maker_shown(key.made_by)) or None,
    }


def shown_revoked(keys: tuple[Key, ...]) -> dict[str, Any]:
    """Return what is shown of a revoked key, with the ids of the keys revoked with it."""
    first, *others = keys
    return {**shown_key(first), "also_revoked": [_shown_id(key.id) for key in others]}


def _shown_id(id: str) -> int | str:
    return int(id) if id.isdecimal() else id
