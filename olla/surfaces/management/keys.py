"""List, create and revoke keys, as JSON.

Rights are checked before; `key_book` manages the keys.
"""

from aiohttp import web

from olla.dialects.dialect import Right
from olla.proxy.internal.routes import InternalRequest
from olla.surfaces.json_requests import KEYS_MAX, parsed
from olla.surfaces.key_book import KeyBook, id_in, shown_key, shown_revoked
from olla.surfaces.management.wire import KeyRequest
from olla.surfaces.responses import json_response

__all__ = ["KeyRoutes"]

_DAY = 86400.0


class KeyRoutes:
    """Serves requests about the keys in the store."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book

    async def list(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        """Return all keys."""
        return json_response({"keys": [shown_key(key) for key in await self._book.keys()]})

    async def create(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        """Create a key: the only response that contains the key itself."""
        wanted = await parsed(asked, KeyRequest, KEYS_MAX)
        days = wanted.expires_in_days
        maker = asked.quota.caller.key
        secret, made = await self._book.create(
            name=wanted.name,
            owner=wanted.user_id,
            tier=wanted.tier,
            rights=frozenset(map(Right, wanted.operations)),
            models=tuple(wanted.models),
            endpoints=tuple(wanted.endpoints),
            lifetime=None if days is None else days * _DAY,
            made_by=maker.mark if maker is not None else "",
        )
        return json_response({"key": secret, **shown_key(made)}, status=201)

    async def revoke(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        """Revoke the key that the path's last part names."""
        return json_response(shown_revoked(await self._book.revoke(id_in(request.raw_path))))
