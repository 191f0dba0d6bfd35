"""Serves keys and usage by user: all of them to admins, a member's own with `self_service`."""

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from olla.access.caller import Caller, refuse
from olla.access.keyring import refuse_key
from olla.access.keys import DEFAULT_RIGHTS
from olla.clock import Clock
from olla.dialects.dialect import Right
from olla.failures import Failed, Failure, Kind
from olla.proxy.answering import Asked, Surface
from olla.surfaces.answers import iso_time, json_response
from olla.surfaces.asking import by_method, parsed
from olla.surfaces.chat import MEMBER
from olla.surfaces.chat_status import Recorder
from olla.surfaces.key_book import Books, KeyBook, id_in, shown_key

if TYPE_CHECKING:
    from olla.store.database import Store
    from olla.store.usage import UsageRow

__all__ = ["AccountSurface", "Accounts"]

_LIMIT = 50
_LIMIT_MAX = 1000
_OWN_KEYS_MAX = 5
"""Active keys that a member may have by making them: limits are counted by key."""
_NAME = "default"


class Accounts(Books, Recorder, Protocol):
    """Whoever has the store."""


class _KeyRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    user_id: str | None = None
    name: str | None = None


class AccountSurface:
    """Answers `/api/keys` and `/api/usage`. `self_service`: members see to their own."""

    def __init__(self, accounts: Accounts, clock: Clock, *, self_service: bool) -> None:
        self._accounts = accounts
        self._book = KeyBook(accounts, clock)
        self._clock = clock
        self._self_service = self_service
        self._making = asyncio.Lock()

    def routes(self) -> dict[str, Surface]:
        """What is answered, by path below the prefix."""
        return {
            "/api/usage": by_method("olla", {"GET": self._usage}),
            "/api/keys": by_method("olla", {"GET": self._keys, "POST": self._create}),
            "/api/keys/*": by_method("olla", {"DELETE": self._revoke}),
        }

    def permission(self, caller: Caller) -> Failure | None:
        """Refuse callers that may not use these paths at all; see `Permission`."""
        if not self._self_service or Right.ADMIN in caller.rights:
            return refuse(caller, Right.ADMIN, "keys and usage")
        return refuse_key(None) if caller.key is None else None

    async def _usage(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        owner = self._whose(asked, request.query.get("user_id"))
        limit = _limit(request.query.get("limit"))

        async def newest(store: "Store") -> "list[UsageRow]":
            recording = self._accounts.recording
            if recording is not None:
                await recording.flush()  # what was asked a moment ago is to be seen
            return await store.usage.recent(limit, owner=owner)

        rows = [_shown(row) for row in await self._accounts.tried(newest)]
        return json_response({"usage": rows, "count": len(rows)})

    async def _keys(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        owner = self._whose(asked, request.query.get("user_id"))
        return json_response({"keys": [shown_key(key) for key in await self._book.keys(owner)]})

    async def _create(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        sent = asked.incoming.has_body
        body = await parsed(asked, _KeyRequest) if sent else _KeyRequest()
        query = request.query
        owner = self._whose(asked, query.get("user_id") or body.user_id)
        if owner is None:
            message = "'user_id' is required: it says whose the key is"
            raise Failed(Failure(Kind.BAD_REQUEST, message))
        async with self._making:  # or several at once would each find room for one more
            return await self._made(asked, owner, query.get("name") or body.name or _NAME)

    async def _made(self, asked: Asked, owner: str, name: str) -> web.StreamResponse:
        by, rights, lifetime = asked.visit.caller.key, DEFAULT_RIGHTS, None
        models: tuple[str, ...] = ()
        endpoints: tuple[str, ...] = ()
        if by is not None and Right.ADMIN not in by.rights:  # no member gets more by it
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
        )
        shown = shown_key(key)
        return json_response({"id": shown.pop("id"), "key": secret, **shown}, status=201)

    async def _revoke(self, request: web.BaseRequest, asked: Asked) -> web.StreamResponse:
        owner = self._whose(asked, request.query.get("user_id"))
        revoked = await self._book.revoke(id_in(request.raw_path), owner)
        return json_response(shown_key(revoked))

    def _whose(self, asked: Asked, user: str | None) -> str | None:
        """Whose keys or usage are meant; None for everybody's.

        Raises:
            Failed: they are none of the caller's business, or no user can be called so.
        """
        if user and not user.isprintable():
            message = "'user_id' is printable characters"
            raise Failed(Failure(Kind.BAD_REQUEST, message))
        key = asked.visit.caller.key
        if key is None or Right.ADMIN in key.rights:
            return user or None
        if not key.owner or (user and user != key.owner):
            whose = f"is of '{key.owner}'" if key.owner else "belongs to nobody"
            message = (
                f"this key {whose}, and is only for keys and usage of its own user; others are "
                "for keys with the right 'admin'"
            )
            raise Failed(Failure(Kind.FORBIDDEN, message))
        return key.owner

    async def _may_have_one_more(self, owner: str, tier: str) -> None:
        """Raises Failed: a member has enough keys, or is none."""
        if tier != MEMBER:
            message = f"only keys of the tier '{MEMBER}' make others; this one is '{tier}'"
            raise Failed(Failure(Kind.FORBIDDEN, message))
        now = self._clock.wall()
        active = [
            key
            for key in await self._book.keys(owner)
            if key.revoked is None and not key.expired(now)
        ]
        if len(active) >= _OWN_KEYS_MAX:
            message = f"'{owner}' has {len(active)} keys, as many as may be; revoke one first"
            raise Failed(Failure(Kind.FORBIDDEN, message))


def _limit(text: str | None) -> int:
    """Raises Failed: it is no number in bounds."""
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
