"""Which of olla's own paths there are, and what each needs."""

from typing import Protocol

from olla import __version__
from olla.app.chat_service import ChatParts, chat_paths
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

__all__ = ["own_paths"]

_OPEN_TO_ALL = frozenset({"/internal/health", "/internal/ready", "/version"})
"""Health checks, which need no key and tell nothing of the fleet's addresses or models."""
_OPERATORS = SurfaceQuota("internal", None)
"""The router's own state: limits of tiers are for what is asked of the fleet."""


class Parts(ChatParts, Protocol):
    """What answers them is made of."""

    lists: ListSurface
    status: StatusSurface
    book: KeyBook
    catalogue: ListCache

    @property
    def prober(self) -> Fleet:
        """What is known of the endpoints."""
        ...


def own_paths(settings: Settings, parts: Parts) -> dict[str, InternalRoute]:
    """All paths that olla answers itself, by path."""
    paths: dict[str, InternalRoute] = {}
    for path, surface in {**parts.lists.routes(), **parts.status.routes()}.items():
        paths[path] = InternalRoute(
            surface, right=None if path in _OPEN_TO_ALL else Right.LIST, own=_OPERATORS
        )
    if settings.surfaces.management.enabled:
        management = settings.surfaces.management
        paths |= ManagementSurface(management, parts.prober, parts.book, parts.catalogue).paths()
        paths |= pages(management.prefix)
    paths |= chat_paths(settings, parts)
    return paths | OpenApi(settings.surfaces, __version__).paths()
