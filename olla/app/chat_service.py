"""Wire the chat service: its routes, with the right and quota of each."""

from collections.abc import Callable
from typing import Protocol

from olla.app.access_wiring import AccessWiring
from olla.clock import Clock
from olla.dialects.dialect import Right
from olla.fleet.snapshot import Snapshot
from olla.proxy.auth.authenticate import SurfaceQuota
from olla.proxy.exchange.context import Services
from olla.proxy.internal.routes import InternalRoute
from olla.settings import Settings
from olla.surfaces.chat.api import TIERS, ChatSurface
from olla.surfaces.chat.keys_and_usage import KeysAndUsageSurface
from olla.surfaces.chat.status import ChatStatus
from olla.surfaces.models.list_cache import ListCache
from olla.telemetry.anonymous_addresses import Addresses
from olla.telemetry.traffic import Traffic

__all__ = ["ChatParts", "chat_routes", "chat_status"]

_MODELS = SurfaceQuota("chat", TIERS)
_REST = SurfaceQuota("chat-service", None)
"""Tier limits apply to requests to the fleet only."""


class ChatParts(Protocol):
    """The objects that the chat service is built from."""

    services: Services
    access: AccessWiring
    chat_status: ChatStatus


def chat_status(
    access: AccessWiring,
    traffic: Traffic,
    addresses: Addresses,
    snapshot: Callable[[], Snapshot],
    catalogue: ListCache,
    clock: Clock,
) -> ChatStatus:
    """Create the status of the chat service."""
    return ChatStatus(
        snapshot=snapshot,
        policy=lambda: access.authenticator.policy,
        own=TIERS,
        recorder=access.store_service,
        requests=lambda visible: traffic.counts(visible).requests,
        active=addresses.active,
        catalogue=catalogue,
        clock=clock,
    )


def chat_routes(settings: Settings, parts: ChatParts) -> dict[str, InternalRoute]:
    """Return the routes of the chat service; empty if it is disabled."""
    chat, services = settings.surfaces.chat, parts.services
    if not chat.enabled:
        return {}
    surface = ChatSurface(default_model=chat.default_model)
    accounts = KeysAndUsageSurface(
        parts.access.store_service,
        services.clock,
        self_service=chat.self_service,
        open_keys=chat.open_keys,
    )
    paths = {
        path: InternalRoute(
            handler,
            right=Right.GENERATE,
            category="generation",
            forwards=True,
            surface_quota=_MODELS,
            operation="generate",
            strict=True,
            recorded=True,
        )
        for path, handler in surface.routes().items()
    }
    for path, handler in parts.chat_status.routes().items():
        paths[path] = InternalRoute(handler, right=Right.LIST, surface_quota=_REST, strict=True)
    paths |= accounts.paths(_REST)
    return {f"{chat.prefix}{path}": route for path, route in paths.items()}
