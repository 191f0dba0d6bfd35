"""Serve the state of the router: health, readiness, status, statistics, process, metrics, version.

`fleet_report` describes endpoints and models; telemetry counts.
"""

import asyncio
import gc
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from olla.access.visibility import Visibility
from olla.clock import Clock
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import Snapshot
from olla.fleet.twins import Twins
from olla.probing.slices import Slices
from olla.proxy.internal.routes import InternalRequest
from olla.surfaces.json_requests import Answer, by_method
from olla.surfaces.models.list_cache import ListCache
from olla.surfaces.models.lists import Refresh
from olla.surfaces.responses import iso_time, json_response, list_response
from olla.surfaces.status.fleet_report import FleetReport, latency
from olla.telemetry.metrics import METRICS_TYPE, Metrics
from olla.telemetry.model_labels import OTHER
from olla.telemetry.traffic import Traffic

__all__ = ["StatusSurface"]

_MAX_AGE = 1.0
_REFRESH_TIMEOUT = 0.5
"""Seconds. Status shows loaded models that are this fresh, without waiting for a slow node."""
_RETRY_AFTER = {"Retry-After": "1"}


class StatusSurface:
    """Serves `/internal`, `/metrics` and `/version`.

    `draining` returns whether olla is about to stop, `open_connections` the number of client
    connections, `loop_lag` the event loop's lag in seconds. `refresh` updates the loaded models.
    Endpoints and models that the caller may not see are omitted.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        twins: Twins,
        metrics: Metrics,
        traffic: Traffic,
        clock: Clock,
        version: str,
        draining: Callable[[], bool] = lambda: False,
        refresh: Refresh | None = None,
        open_connections: Callable[[], int] = lambda: 0,
        loop_lag: Callable[[], float] = lambda: 0.0,
        catalogue: ListCache | None = None,
    ) -> None:
        self._catalogue = catalogue or ListCache()
        # Separate from those of the lists: monitoring must not wait for long lists.
        self._slices = Slices()
        self._fleet = FleetReport(snapshot, twins, traffic, clock, self._catalogue)
        self._metrics = metrics
        self._traffic = traffic
        self._clock = clock
        self._version = version
        self._settings = ""
        self._policy = ""
        self._draining = draining
        self._refresh = refresh
        self._open_connections = open_connections
        self._loop_lag = loop_lag
        self._started = clock.now()
        self._started_wall = clock.wall()

    def describe(self, settings: str, policy: str) -> None:
        """Set the source of the settings in force, and the routing policy."""
        self._settings = settings
        self._policy = policy

    def routes(self) -> dict[str, Answer]:
        """Return the handlers by exact path."""
        answers: dict[str, Answer] = {
            "/internal/health": self._health,
            "/internal/ready": self._ready,
            "/internal/status": self._status,
            "/internal/status/endpoints": self._endpoints,
            "/internal/status/models": self._models,
            "/internal/stats/models": self._model_stats,
            "/internal/process": self._process,
            "/internal/metrics": self._render_metrics,
            "/metrics": self._render_metrics,
            "/version": self._about,
        }
        return {path: by_method("olla", {"GET": answer}) for path, answer in answers.items()}

    async def _health(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        return json_response(
            {
                "status": "healthy",
                "version": self._version,
                "uptime_seconds": self._uptime(),
            }
        )

    async def _ready(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        counts = self._fleet.totals()
        draining = self._draining()
        ready = counts["endpoints_routable"] > 0 and not draining
        return json_response(
            {"status": "ready" if ready else "not_ready", "draining": draining, **counts},
            status=200 if ready else 503,
            headers=None if ready else _RETRY_AFTER,
        )

    async def _status(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        if self._refresh is not None:
            await self._refresh("resident", _MAX_AGE, _REFRESH_TIMEOUT)
        visible = Visibility.of(asked.quota.caller)
        traffic = self._traffic.counts(visible)
        counts = await self._slices.run(self._fleet.counts(visible))
        endpoints = await self._slices.run(self._fleet.endpoints(visible))
        draining = self._draining()
        return json_response(
            {
                "timestamp": iso_time(self._clock.wall()),
                "status": _overall(counts, draining),
                "version": self._version,
                "started_at": iso_time(self._started_wall),
                "uptime_seconds": self._uptime(),
                "settings": self._settings,
                "policy": self._policy,
                "draining": draining,
                "counts": counts,
                "requests": {
                    "total": traffic.requests,
                    "failures": traffic.failures,
                    "client_errors": traffic.client_errors,
                    "in_flight": self._fleet.in_flight(visible),
                    "bytes_in": traffic.bytes_in,
                    "bytes_out": traffic.bytes_out,
                },
                # Connections belong to no endpoint or model.
                "open_connections": self._open_connections() if visible.everything else None,
                "endpoints": endpoints,
            }
        )

    async def _endpoints(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        visible = Visibility.of(asked.quota.caller)
        return json_response(
            {
                "timestamp": iso_time(self._clock.wall()),
                "counts": await self._slices.run(self._fleet.counts(visible)),
                "endpoints": await self._slices.run(self._fleet.endpoints(visible)),
            }
        )

    async def _models(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        visible = Visibility.of(asked.quota.caller)
        models = await self._catalogue.shared(visible, lambda: self._fleet.models(visible))
        head = {"timestamp": iso_time(self._clock.wall()), "total": len(models)}
        before = msgspec.json.encode(head)[:-1] + b',"models":['
        return list_response(before, models, b"]}")

    async def _model_stats(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        visible = Visibility.of(asked.quota.caller)
        rows = [
            {
                "name": name,
                "requests": model.requests,
                "failures": model.failures,
                "client_errors": model.client_errors,
                "prompt_tokens": model.prompt_tokens,
                "output_tokens": model.output_tokens,
                "last_requested": iso_time(model.last_requested),
                "ttfb_seconds": latency(model.first_byte),
                "duration_seconds": latency(model.duration),
            }
            for name, model in self._traffic.models.items()
            if visible.all_models or (name != OTHER and visible.sees_model(name))
        ]
        rows.sort(key=lambda row: (-self._traffic.models[str(row["name"])].requests, row["name"]))
        return json_response({"timestamp": iso_time(self._clock.wall()), "models": rows})

    async def _process(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        everything = Visibility.of(asked.quota.caller).everything
        return json_response(
            {
                "timestamp": iso_time(self._clock.wall()),
                "pid": os.getpid(),
                "python": platform.python_version(),
                "uptime_seconds": self._uptime(),
                "cpu_seconds": round(time.process_time(), 3),
                "rss_bytes": _resident_bytes(),
                "threads": threading.active_count(),
                "open_files": _open_files(),
                "tasks": len(asyncio.all_tasks()),
                "open_connections": self._open_connections() if everything else None,
                "event_loop_lag_seconds": round(self._loop_lag(), 6),
                "gc": [
                    {"generation": number, "pending": pending, **stats}
                    for number, (pending, stats) in enumerate(
                        zip(gc.get_count(), gc.get_stats(), strict=True)
                    )
                ],
            }
        )

    async def _render_metrics(
        self, request: web.BaseRequest, asked: InternalRequest
    ) -> web.Response:
        rendering = self._metrics.rendering(Visibility.of(asked.quota.caller))
        body = await self._slices.run(rendering)
        return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})

    async def _about(self, request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        dialects: set[str] = set().union(*(row.dialects for row in PROFILES.values()))
        about: dict[str, Any] = {
            "name": "olla",
            "version": self._version,
            "description": "Load-balancing router that makes a fleet of Ollama servers look"
            " like one",
            "dialects": sorted(dialects),
            "supported_backends": list(PROFILES),
            "links": {
                "health": "/internal/health",
                "ready": "/internal/ready",
                "status": "/internal/status",
                "process": "/internal/process",
                "metrics": "/metrics",
                "models": "/olla/models",
            },
        }
        return json_response(about)

    def _uptime(self) -> float:
        return round(self._clock.now() - self._started, 3)


def _overall(counts: dict[str, int], draining: bool) -> str:
    if draining:
        return "draining"
    if not counts["endpoints_routable"]:
        return "unavailable"
    return "healthy" if counts["endpoints_routable"] == counts["endpoints"] else "degraded"


def _resident_bytes() -> int | None:
    """Return the used memory, if the system reports it under /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None
