"""Serve keys and usage by owner.

Admins see and change all of them. With `self_service` members see and change their own. With
`open_keys` anonymous callers create keys of the tier member, and see and revoke the keys created
that way, but never one that an admin or a member created.
"""

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from olla.access.caller import Caller, refuse
from olla.access.keyring import refuse_key
from olla.access.keys import DEFAULT_RIGHTS, OPEN_MAKER, Key
from olla.clock import Clock
from olla.dialects.dialect import Right
from olla.failures import Failed, Failure, Kind
from olla.proxy.auth.authenticate import SurfaceQuota
from olla.proxy.internal.routes import InternalRequest, InternalRoute
from olla.surfaces.chat.api import MEMBER
from olla.surfaces.chat.status import Recorder
from olla.surfaces.json_requests import KEYS_MAX, by_method, parsed
from olla.surfaces.key_book import KeyBook, KeyStore, id_in, shown_key, shown_revoked
from olla.surfaces.responses import iso_time, json_response

if TYPE_CHECKING:
    from olla.store.database import Store
    from olla.store.usage import UsageRow

__all__ = ["Accounts", "KeysAndUsageSurface"]

_LIMIT = 50
_LIMIT_MAX = 1000
_OWN_KEYS_MAX = 5
"""Active keys that a member may create."""
_OPEN_KEYS_MAX = 1000
"""Keys that anonymous callers may create in total, including revoked ones: each is in memory."""
_NAME = "default"
_WHOSE = "'user_id' is required: it says whose the key is"


class Accounts(KeyStore, Recorder, Protocol):
    """The owner of the store."""


class _KeyRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    user_id: str | None = None
    name: str | None = None


class _Reach(NamedTuple):
    """The keys or usage that a caller may reach: those of an owner and of a maker; None for any."""

    owner: str | None
    made_by: str | None = None


class KeysAndUsageSurface:
    """Serves `/api/keys` and `/api/usage`."""

    def __init__(
        self, accounts: Accounts, clock: Clock, *, self_service: bool, open_keys: bool = False
    ) -> None:
        self._accounts = accounts
        self._book = KeyBook(accounts, clock)
        self._clock = clock
        self._self_service = self_service
        self._open_keys = open_keys
        self._making = asyncio.Lock()

    def paths(self, own: SurfaceQuota) -> dict[str, InternalRoute]:
        """Return the routes by path below the prefix."""
        usage = by_method("olla", {"GET": self._usage})
        keys = by_method("olla", {"GET": self._keys, "POST": self._create})
        one = by_method("olla", {"DELETE": self._revoke})
        return {
            "/api/usage": InternalRoute(
                usage, right=self._for_usage, surface_quota=own, strict=True
            ),
            "/api/keys": InternalRoute(keys, right=self._for_keys, surface_quota=own, strict=True),
            "/api/keys/*": InternalRoute(one, right=self._for_keys, surface_quota=own, strict=True),
        }

    def _for_usage(self, caller: Caller) -> Failure | None:
        """Reject callers that may not read usage; see `Permission`."""
        key = caller.key
        if not self._self_service or Right.ADMIN in caller.rights:
            return refuse(caller, Right.ADMIN, "keys and usage")
        if key is None:
            return refuse_key(None)
        if key.made_by == OPEN_MAKER:  # its creator chose the owner's name
            message = "a key that was made without a key is not for the keys and usage of its user"
            return Failure(Kind.FORBIDDEN, f"{message}; ask an admin for another one")
        return None

    def _for_keys(self, caller: Caller) -> Failure | None:
        """Reject callers that may not create, list and revoke keys; see `Permission`."""
        if self._open_keys and caller.key is None:
            return None
        return self._for_usage(caller)

    async def _usage(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        owner = self._reach(asked, request.query.get("user_id")).owner
        limit = _limit(request.query.get("limit"))

        async def newest(store: "Store") -> "list[UsageRow]":
            usage_writer = self._accounts.usage_writer
            if usage_writer is not None:
                await usage_writer.flush()  # recent requests must be visible
            return await store.usage.recent(limit, owner=owner)

        rows = [_shown(row) for row in await self._accounts.tried(newest)]
        return json_response({"usage": rows, "count": len(rows)})

    async def _keys(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        found = await self._book.keys(*self._reach(asked, request.query.get("user_id")))
        return json_response({"keys": [shown_key(key) for key in found]})

    async def _create(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        sent = asked.incoming.has_body
        body = await parsed(asked, _KeyRequest, KEYS_MAX) if sent else _KeyRequest()
        query = request.query
        reach = self._reach(asked, query.get("user_id") or body.user_id)
        if reach.owner is None:
            raise Failed(Failure(Kind.BAD_REQUEST, _WHOSE))
        name = query.get("name") or body.name or _NAME
        async with self._making:  # otherwise concurrent calls would each find room for one more
            return await self._made(asked.quota.caller.key, reach.owner, name)

    async def _made(self, by: Key | None, owner: str, name: str) -> web.StreamResponse:
        rights, lifetime = DEFAULT_RIGHTS, None
        models: tuple[str, ...] = ()
        endpoints: tuple[str, ...] = ()
        if by is None:
            await self._may_be_made_openly(owner)
        elif Right.ADMIN not in by.rights:  # a member's key gets no more than the member's rights
            await self._may_have_one_more(owner, by.tier)
            rights, models, endpoints = rights & by.rights, by.models, by.endpoints
            if by.expires is not None:
                lifetime = by.expires - self._clock.wall()
        secret, key = await self._book.create(
            name=name,
            owner=owner,
            tier=MEMBER,
            rights=rights,
            models=models,
            endpoints=endpoints,
            lifetime=lifetime,
            made_by=OPEN_MAKER if by is None else by.mark,
        )
        shown = shown_key(key)
        return json_response({"id": shown.pop("id"), "key": secret, **shown}, status=201)

    async def _revoke(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        reach = self._reach(asked, request.query.get("user_id"))
        return json_response(
            shown_revoked(await self._book.revoke(id_in(request.raw_path), *reach))
        )

    def _reach(self, asked: InternalRequest, user: str | None) -> _Reach:
        """Return the keys or usage that the caller may reach, restricted to `user` if given.

        Raises:
            Failed: they do not belong to the caller, or the name is invalid.
        """
        if user and not user.isprintable():
            message = "'user_id' is printable characters"
            raise Failed(Failure(Kind.BAD_REQUEST, message))
        key = asked.quota.caller.key
        if key is None:
            if not user:
                raise Failed(Failure(Kind.BAD_REQUEST, _WHOSE))
            return _Reach(user, OPEN_MAKER)
        if Right.ADMIN in key.rights:
            return _Reach(user or None)
        if not key.owner or (user and user != key.owner):
            whose = f"is of '{key.owner}'" if key.owner else "belongs to nobody"
            message = (
                f"this key {whose}, and is only for keys and usage of its own user; others are "
                "for keys with the right 'admin'"
            )
            raise Failed(Failure(Kind.FORBIDDEN, message))
        return _Reach(key.owner)

    async def _may_be_made_openly(self, owner: str) -> None:
        """Raises Failed: anonymous callers have created enough keys, or may not create keys of this
        owner."""
        of_owner = await self._book.keys(owner)
        if any(key.made_by != OPEN_MAKER for key in of_owner):
            message = f"'{owner}' has keys that were made with a key; others of it need one, too"
            raise Failed(Failure(Kind.FORBIDDEN, message))
        self._check_count(owner, of_owner)
        if len(await self._book.keys(made_by=OPEN_MAKER)) >= _OPEN_KEYS_MAX:
            message = (
                f"{_OPEN_KEYS_MAX} keys were made without a key, as many as may be; an admin can "
                "make more"
            )
            raise Failed(Failure(Kind.FORBIDDEN, message))

    async def _may_have_one_more(self, owner: str, tier: str) -> None:
        """Raises Failed: a member has enough keys, or the caller is not a member."""
        if tier != MEMBER:
            message = f"only keys of the tier '{MEMBER}' make others; this one is '{tier}'"
            raise Failed(Failure(Kind.FORBIDDEN, message))
        self._check_count(owner, await self._book.keys(owner))

    def _check_count(self, owner: str, keys: list[Key]) -> None:
        """Raises Failed: an owner with these keys has enough."""
        now = self._clock.wall()
        active = [key for key in keys if key.revoked is None and not key.expired(now)]
        if len(active) >= _OWN_KEYS_MAX:
            message = f"'{owner}' has {len(active)} keys, as many as may be; revoke one first"
            raise Failed(Failure(Kind.FORBIDDEN, message))


def _limit(text: str | None) -> int:
    """Raises Failed: the text is not a number within the bounds."""
    if not text:
        return _LIMIT
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= _LIMIT_MAX:
        return int(text)
    raise Failed(Failure(Kind.BAD_REQUEST, f"'limit' is a number from 1 to {_LIMIT_MAX}"))


def _shown(row: "UsageRow") -> dict[str, Any]:
    tokens = (row.prompt_tokens, row.output_tokens)
    return {
        "id": row.request_id,
        "timestamp": iso_time(row.at),
        "user_id": row.owner or None,
        "key_name": row.key_name or None,
        "tier": row.tier,
        "caller": row.caller,
        "model": row.model or None,
        "endpoint": row.endpoint or None,
        "operation": row.operation,
        "status": row.status,
        "error": row.failure,
        "streaming": row.streaming,
        "prompt_tokens": row.prompt_tokens,
        "output_tokens": row.output_tokens,
        "total_tokens": None if tokens == (None, None) else sum(each or 0 for each in tokens),
        "estimated": row.estimated,
        "queue_seconds": row.queue_seconds,
        "first_token_seconds": row.first_token_seconds,
        "duration_seconds": row.total_seconds,
    }
