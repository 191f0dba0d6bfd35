"""Makes, lists and revokes keys, for every surface that does so.

A key is shown once, when it is made. Who may do it is not decided here.
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
    """Whoever has the store. All raise `Failed` when it is away."""

    async def create(self, key: Key) -> Key:
        """Keep a new key; it comes back with its id."""
        ...

    async def revoke(
        self, id: str, *, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key, of one owner or maker where one is named, and those that it made; nothing
        when there is none such."""
        ...

    async def tried(self, work: "Callable[[Store], Awaitable[T]]") -> T:
        """What the store answers."""
        ...


class KeyBook:
    """Keys in the store."""

    def __init__(
        self,
        books: KeyStore,
        clock: Clock,
        tiers: Callable[[], Collection[str]] | None = None,
        endpoints: Callable[[], Collection[str]] | None = None,
    ) -> None:
        """`tiers` and `endpoints` are those there are: a key of another tier would have no limits,
        one for another endpoint could be sent nowhere. None to take any."""
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
        """Make a key: itself, which nobody can see again, and what is kept of it. `lifetime` is
        in seconds, None for ever. `made_by` is the `mark` of the key that makes it.

        Raises:
            Failed: a text is empty, too long or odd, there is no such tier or endpoint, the key
                that makes it was revoked meanwhile, or the store is away.
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
        """All keys, or those of one owner or maker, revoked ones too.

        Raises:
            Failed: the store is away.
        """
        return await self._books.tried(lambda store: store.keys.find(owner=owner, made_by=made_by))

    async def revoke(
        self, id: str, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key (of one owner or maker where one is named), and those that it made: none is
        accepted from now on. Returns the key first.

        Raises:
            Failed: there is none such, or the store is away.
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
    """The id that a request's target, as it was sent, ends with. A slash that is encoded is part
    of it: it makes no other key's id of the rest."""
    return unquote(target.partition("?")[0].rpartition("/")[2])


def shown_key(key: Key) -> dict[str, Any]:
    """What may be shown of a key, as JSON; ids as numbers where they are such."""
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
    """What is shown of a key that was revoked, with the ids of those that ended with it."""
    first, *others = keys
    return {**shown_key(first), "also_revoked": [_shown_id(key.id) for key in others]}


def _shown_id(id: str) -> int | str:
    return int(id) if id.isdecimal() else id
