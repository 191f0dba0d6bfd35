"""Assemble the routes that olla answers itself, with the right and quota of each."""

from typing import Protocol

from olla import __version__
from olla.app.chat_service import ChatParts, chat_routes
from olla.dialects.dialect import Right
from olla.proxy.auth.authenticate import SurfaceQuota
from olla.proxy.exchange.context import Fleet
from olla.proxy.internal.routes import InternalRoute
from olla.settings import Settings
from olla.surfaces.key_book import KeyBook
from olla.surfaces.management.api import ManagementSurface
from olla.surfaces.models.list_cache import ListCache
from olla.surfaces.models.lists import ListSurface
from olla.surfaces.openapi.document import OpenApi
from olla.surfaces.pages import pages
from olla.surfaces.status.api import StatusSurface

__all__ = ["internal_routes"]

_OPEN_TO_ALL = frozenset({"/internal/health", "/internal/ready", "/version"})
"""Health checks. They need no key, and reveal no addresses or models."""
_OPERATORS = SurfaceQuota("internal", None)
"""Quota for the router's status pages: tier limits apply to requests to the fleet only."""


class Parts(ChatParts, Protocol):
    """The objects that the routes are built from."""

    lists: ListSurface
    status: StatusSurface
    book: KeyBook
    catalogue: ListCache

    @property
    def prober(self) -> Fleet:
        """The endpoints and their state."""
        ...


def internal_routes(settings: Settings, parts: Parts) -> dict[str, InternalRoute]:
    """Return all routes that olla answers itself, by path."""
    paths: dict[str, InternalRoute] = {}
    for path, surface in {**parts.lists.routes(), **parts.status.routes()}.items():
        paths[path] = InternalRoute(
            surface, right=None if path in _OPEN_TO_ALL else Right.LIST, surface_quota=_OPERATORS
        )
    if settings.surfaces.management.enabled:
        management = settings.surfaces.management
        paths |= ManagementSurface(management, parts.prober, parts.book, parts.catalogue).paths()
        paths |= pages(management.prefix)
    paths |= chat_routes(settings, parts)
    return paths | OpenApi(settings.surfaces, __version__).paths()
