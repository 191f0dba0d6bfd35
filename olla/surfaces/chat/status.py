"""Serve the status of the chat service: server, machine, Ollama, usage.

It is for users of the service; `/internal` is for operators.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
import psutil
from aiohttp import web

from olla.access.limit import Limit, LimitKind
from olla.access.policy import AccessPolicy
from olla.access.visibility import Visibility
from olla.clock import Clock
from olla.failures import Failed
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import Snapshot
from olla.proxy.internal.routes import InternalRequest, Surface
from olla.surfaces.json_requests import by_method
from olla.surfaces.models.list_cache import ListCache, Shape
from olla.surfaces.models.merge import Merged
from olla.surfaces.responses import json_response

if TYPE_CHECKING:
    from olla.store.database import Store
    from olla.store.usage_writer import UsageWriter

__all__ = ["ChatStatus", "Recorder"]

T = TypeVar("T")
_GIB = 1 << 30
_GB = 1e9
"""The unit of model sizes, as in Ollama."""
_COUNT_AGAIN = 10.0
"""Seconds between two counts of the store's rows; rows written in between are added."""
_PATIENCE = 1.0
"""Time limit of a count, in seconds."""


def _shown(one: Merged, _: Any) -> dict[str, Any]:
    return {"name": one.model.name, "size_gb": round((one.model.size or 0) / _GB, 2)}


_SHAPE = Shape(_shown)


class Recorder(Protocol):
    """The owner of the store, as `StoreService`."""

    @property
    def usage_writer(self) -> "UsageWriter | None":
        """Writes usage, if the store is open."""
        ...

    @property
    def away(self) -> str | None:
        """Why the store is unavailable."""
        ...

    async def tried(self, work: "Callable[[Store], Awaitable[T]]") -> T:
        """Return the result of a query. Raises `Failed` while the store is unavailable."""
        ...


class ChatStatus:
    """Serves `/api/status`.

    `policy` has the limits in force, `own` those of tiers that it does not define. `requests`
    counts the visible requests of this process, `active` recently seen anonymous addresses.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        policy: Callable[[], AccessPolicy],
        own: Mapping[str, tuple[Limit, ...]],
        recorder: Recorder,
        requests: Callable[[Visibility], int],
        active: Callable[[], int],
        catalogue: ListCache,
        clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._policy = policy
        self._own = own
        self._recorder = recorder
        self._requests = requests
        self._active = active
        self._catalogue = catalogue
        self._clock = clock
        self._started = clock.now()
        self._before = 0
        """Rows in the store that other processes wrote."""
        self._counted: tuple[UsageWriter, float] | None = None
        psutil.cpu_percent(interval=None)  # it reports the time since the previous call

    def routes(self) -> dict[str, Surface]:
        """Return the handlers by path below the prefix."""
        return {"/api/status": by_method("olla", {"GET": self._status})}

    async def _status(self, request: web.BaseRequest, asked: InternalRequest) -> web.StreamResponse:
        memory = psutil.virtual_memory()
        visible = Visibility.of(asked.quota.caller)
        uptime = int(self._clock.now() - self._started)
        return json_response(
            {
                "server": {"uptime_seconds": uptime, "uptime_human": in_words(uptime)},
                "system": {
                    "ram_total_gb": round(memory.total / _GIB, 1),
                    "ram_used_gb": round((memory.total - memory.available) / _GIB, 1),
                    "ram_percent": memory.percent,
                    "cpu_percent": psutil.cpu_percent(interval=None),
                },
                "ollama": await self._ollama(visible),
                "usage": {
                    "total_requests": await self._total(visible),
                    "active_anonymous_ips": self._active() if visible.everything else None,
                    "anon_rate_limit": self._limit("anonymous"),
                    "member_rate_limit": self._limit("member"),
                },
            }
        )

    async def _ollama(self, visible: Visibility) -> dict[str, Any]:
        views = [
            view
            for view in visible.views(self._snapshot().endpoints)
            if view.routable
            and view.profile is not None
            and view.profile.list_format is ListFormat.OLLAMA
        ]
        rows = await self._catalogue.rows(views, _SHAPE, visible)
        return {"online": bool(views), "models": [msgspec.Raw(row[1]) for row in rows]}

    async def _total(self, visible: Visibility) -> int:
        """Count the visible requests: all of the store if it is open, else those of this process.
        For callers who may see a part of the fleet, only those of this process."""
        if not visible.everything:
            return self._requests(visible)
        recorder = self._recorder
        usage_writer, now = recorder.usage_writer, self._clock.now()
        if usage_writer is None:
            return self._requests(visible)
        counted = self._counted
        known = counted is not None and counted[0] is usage_writer
        if not known or counted is None or now - counted[1] >= _COUNT_AGAIN:
            written = usage_writer.written
            with suppress(Failed, TimeoutError):
                if recorder.away is None:
                    async with asyncio.timeout(_PATIENCE):
                        total = await recorder.tried(lambda store: store.usage.total())
                    self._before, self._counted, known = total - written, (usage_writer, now), True
        if not known:
            return self._requests(visible)
        return self._before + usage_writer.written + usage_writer.pending

    def _limit(self, tier: str) -> str:
        for limit in self._policy().of_tier(tier, self._own):
            if limit.kind is LimitKind.REQUESTS:
                return f"{limit.amount} req / 60s"
        return "unlimited"


def in_words(seconds: int) -> str:
    """Format a time in days, hours and minutes, such as `1h 0m`."""
    hours, minutes = divmod(seconds // 60, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h {minutes}m" if days else f"{hours}h {minutes}m"
