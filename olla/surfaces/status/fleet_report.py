"""Describe endpoints and models for the status pages, as far as a caller may see them.

Plain functions of a snapshot and the caller's visibility; `api` speaks HTTP. Functions whose cost
grows with the number of models are generators that yield after each, see `Slices`.
"""

from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any

import msgspec

from olla.access.visibility import Visibility
from olla.clock import Clock
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.instance import ModelInstance
from olla.fleet.model_names import display
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.fleet.twins import Twins
from olla.probing.list_parsing import MODELS_MAX
from olla.surfaces.models import merge
from olla.surfaces.models.list_cache import ListCache, Shape
from olla.surfaces.responses import iso_time
from olla.telemetry.traffic import EndpointTraffic, Traffic, Window

__all__ = ["FleetReport", "latency"]

_WORDS = {
    Health.UNKNOWN: "not asked yet",
    Health.WARMING: "coming up",
    Health.UNHEALTHY: "fails its probes",
    Health.OFFLINE: "does not answer",
    Health.CONFIG_ERROR: "refuses olla: check the endpoint's credentials and address",
    Health.RATE_LIMITED: "asked for a pause",
}
"""The states in which an endpoint gets no requests, in words."""


def _known(one: merge.Merged, _: Any) -> dict[str, Any]:
    return {"name": one.model.name, **merge.known_of(one)}


_KNOWN = Shape(_known)


class FleetReport:
    """Describes the current endpoints and models."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        twins: Twins,
        traffic: Traffic,
        clock: Clock,
        catalogue: ListCache,
    ) -> None:
        self._catalogue = catalogue
        self._snapshot = snapshot
        self._twins = twins
        self._traffic = traffic
        self._clock = clock

    def totals(self) -> dict[str, int]:
        """Return `counts` of the whole fleet at once."""
        routable = [view for view in self._snapshot().endpoints if _routable(view)]
        models: set[str] = set().union(*[view.models.keys() for view in routable])
        endpoints = len(self._snapshot().endpoints)
        return {
            "endpoints": endpoints,
            "endpoints_routable": len(routable),
            "models": len(models),
        }

    def counts(self, visible: Visibility) -> Generator[None, None, dict[str, int]]:
        """Count the endpoints, those that accept requests, and the models on the latter."""
        views = visible.views(self._snapshot().endpoints)
        routable = [view for view in views if _routable(view)]
        names: set[str] = set().union(*[view.models.keys() for view in routable])
        models = yield from _seen(names, visible)
        return {"endpoints": len(views), "endpoints_routable": len(routable), "models": models}

    def endpoints(self, visible: Visibility) -> Generator[None, None, list[dict[str, Any]]]:
        """Describe every endpoint, in configuration order."""
        found: list[dict[str, Any]] = []
        for view in visible.views(self._snapshot().endpoints):
            yield
            models = yield from _seen(view.models, visible)
            found.append(self._endpoint(view, visible, models))
        return found

    def models(self, visible: Visibility) -> Generator[None, None, list[bytes]]:
        """Return every model on any endpoint, routable or not, as JSON, newest first."""
        if not visible.lists:
            return []
        views = visible.views(self._snapshot().endpoints)
        by_name = {view.name: view for view in views}
        found: list[bytes] = []
        for one, known in (yield from self._catalogue.making(views, _KNOWN)):
            yield
            if visible.matches(one.shown):
                places = [self._place(one.name, by_name[name]) for name in one.holders]
                routable = b"true" if any(place["routable"] for place in places) else b"false"
                rest = b',"routable":%b,"endpoints":%b}' % (routable, msgspec.json.encode(places))
                found.append(known[:-1] + rest)
        return found

    def in_flight(self, visible: Visibility) -> int:
        """Count the visible inference requests in flight."""
        if visible.everything:
            return self._twins.total()
        views = visible.views(self._snapshot().endpoints)
        return sum(self._in_flight_on(view.name, visible) for view in views)

    def _in_flight_on(self, endpoint: str, visible: Visibility) -> int:
        if visible.all_models:
            return self._twins.on(endpoint)
        return self._twins.on_models(endpoint, visible.sees_model)

    def _place(self, name: str, view: EndpointView) -> dict[str, Any]:
        resident_model = view.resident.get(name)
        return {
            "endpoint": view.name,
            "routable": _routable(view),
            "resident": resident_model is not None,
            "vram_bytes": None if resident_model is None else resident_model.size_vram,
            "in_flight": self._twins.on_model(view.name, name),
        }

    def _endpoint(self, view: EndpointView, visible: Visibility, models: int) -> dict[str, Any]:
        traffic = self._traffic.endpoints.get(view.name) or EndpointTraffic()
        resident_models = {each.name: each for each in view.resident.values()}
        stuck = [*filter(visible.sees_model, self._stuck(view))]
        refused = [*filter(visible.sees_model, self._refused(view))]
        return {
            "name": view.name,
            "url": view.spec.url if visible.addresses else None,
            "type": view.profile.name if view.profile is not None else view.spec.type,
            "status": view.health.value,
            "breaker": view.breaker.value,
            "routable": _routable(view),
            "reason": _reason(view, stuck, refused),
            "stuck": stuck,
            "refused": refused,
            "priority": view.spec.priority,
            "in_flight": self._in_flight_on(view.name, visible),
            "models": models,
            "models_cut": view.models_cut,
            "resident": [
                {
                    "name": each.name,
                    "vram_bytes": each.size_vram,
                    "expires_at": iso_time(each.expires_at),
                }
                for each in resident_models.values()
                if visible.sees_model(each.name)
            ],
            "version": view.version,
            "last_error": view.last_error,
            "checked_at": self._iso(view.checked_at),
            "next_check_at": self._iso(view.next_check_at),
            "models_at": self._iso(view.models_at),
            "attempts": {
                "succeeded": traffic.successes,
                "failed": traffic.failures,
                "abandoned": traffic.abandoned,
            },
            "ttfb_seconds": latency(traffic.first_byte),
        }

    def _stuck(self, view: EndpointView) -> list[str]:
        """Models that make no progress although the endpoint is healthy."""
        twin = self._twins.by_name.get(view.name)
        return _names(view, twin.stuck if twin is not None else ())

    def _refused(self, view: EndpointView) -> list[str]:
        """Models for which the endpoint gets no requests now, because it recently rejected some."""
        twin, now = self._twins.by_name.get(view.name), self._clock.now()
        instances = twin.refusing if twin is not None else ()
        return _names(view, [instance for instance in instances if now < instance.refused_until])

    def _iso(self, monotonic: float | None) -> str | None:
        if monotonic is None:
            return None
        return iso_time(self._clock.wall() + monotonic - self._clock.now())


def latency(window: Window) -> dict[str, float | None]:
    """Return mean, median and 95th percentile of the last measurements, in seconds."""
    median, high = window.quantiles((0.5, 0.95))
    return {"mean": _rounded(window.mean()), "p50": _rounded(median), "p95": _rounded(high)}


def _routable(view: EndpointView) -> bool:
    return view.routable and view.profile is not None


def _names(view: EndpointView, instances: Iterable[ModelInstance]) -> list[str]:
    """Return the names of model instances in the endpoint's spelling."""
    return sorted(
        view.models[instance.model].name for instance in instances if instance.model in view.models
    )


def _reason(view: EndpointView, stuck: list[str], refused: list[str]) -> str | None:
    """Explain why an endpoint gets no requests, or fewer; None if it is healthy."""
    if not view.routable:
        words = _WORDS.get(view.health, view.health.value)
        return f"{words} ({view.last_error})" if view.last_error else words
    if view.profile is None:
        return "what kind of server it is could not be found out yet"
    if view.breaker is BreakerState.OPEN:
        return "answers its probes, but recent requests failed: left out where another can serve"
    if view.breaker is BreakerState.HALF_OPEN:
        return "recent requests failed: one at a time is tried"
    if stuck:
        return f"is stuck on {', '.join(stuck)}: requests for that go elsewhere"
    if refused:
        return f"has refused requests for {', '.join(refused)}: left alone with that for a while"
    if view.ramp:
        return f"has come back: {view.ramp} requests at a time for now"
    if view.models_cut:
        return f"lists more models than olla reads: only the first {MODELS_MAX} are known"
    return None


def _seen(names: Collection[str], visible: Visibility) -> Generator[None, None, int]:
    """Count the visible models among these canonical names."""
    if visible.all_models or not visible.lists:
        return len(names) if visible.lists else 0
    count = 0
    for name in names:
        yield
        count += visible.matches(display(name))
    return count


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
