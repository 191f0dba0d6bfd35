"""What is known of the endpoints and models, as the status pages say it.

Plain functions of a snapshot; HTTP is `status`' business.
"""

from collections.abc import Callable, Iterable
from typing import Any

from olla.clock import Clock
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.line import Line
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.fleet.twins import Twins
from olla.surfaces import merge
from olla.surfaces.answers import iso_time
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
"""For the states in which an endpoint gets no requests."""


class FleetReport:
    """Tells of endpoints and models as of now."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], twins: Twins, traffic: Traffic, clock: Clock
    ) -> None:
        self._snapshot = snapshot
        self._twins = twins
        self._traffic = traffic
        self._clock = clock

    def counts(self) -> dict[str, int]:
        """How many endpoints there are, how many may take requests, and how many models those
        have."""
        views = self._snapshot().endpoints
        routable = [view for view in views if _routable(view)]
        names = {name for view in routable for name in view.models}
        return {
            "endpoints": len(views),
            "endpoints_routable": len(routable),
            "models": len(names),
        }

    def endpoints(self) -> list[dict[str, Any]]:
        """Every endpoint, in configuration order."""
        return [self._endpoint(view) for view in self._snapshot().endpoints]

    def models(self) -> list[dict[str, Any]]:
        """Every model any endpoint has, whether it can be routed to or not, newest first."""
        found = []
        for one in merge.merged(self._snapshot().endpoints):
            shown = merge.unified_model(one)["olla"]
            del shown["availability"]
            places = [self._place(one.name, view) for view in one.holders]
            found.append(
                {
                    "name": one.model.name,
                    **shown,
                    "routable": any(place["routable"] for place in places),
                    "endpoints": places,
                }
            )
        return found

    def _place(self, name: str, view: EndpointView) -> dict[str, Any]:
        instance = view.resident.get(name)
        return {
            "endpoint": view.name,
            "routable": _routable(view),
            "resident": instance is not None,
            "vram_bytes": None if instance is None else instance.size_vram,
            "in_flight": self._twins.on_model(view.name, name),
        }

    def _endpoint(self, view: EndpointView) -> dict[str, Any]:
        traffic = self._traffic.endpoints.get(view.name) or EndpointTraffic()
        instances = {each.name: each for each in view.resident.values()}
        stuck, refused = self._stuck(view), self._refused(view)
        return {
            "name": view.name,
            "url": view.spec.url,
            "type": view.profile.name if view.profile is not None else view.spec.type,
            "status": view.health.value,
            "breaker": view.breaker.value,
            "routable": _routable(view),
            "reason": _reason(view, stuck, refused),
            "stuck": stuck,
            "refused": refused,
            "priority": view.spec.priority,
            "in_flight": self._twins.on(view.name),
            "models": len(view.models),
            "resident": [
                {
                    "name": each.name,
                    "vram_bytes": each.size_vram,
                    "expires_at": iso_time(each.expires_at),
                }
                for each in instances.values()
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
        """Models on which nothing moves although the endpoint says that it is well."""
        twin = self._twins.by_name.get(view.name)
        return _names(view, twin.stuck if twin is not None else ())

    def _refused(self, view: EndpointView) -> list[str]:
        """Models that the endpoint is not asked for now, because it has refused them lately."""
        twin, now = self._twins.by_name.get(view.name), self._clock.now()
        lines = twin.refusing if twin is not None else ()
        return _names(view, [line for line in lines if now < line.refused_until])

    def _iso(self, monotonic: float | None) -> str | None:
        if monotonic is None:
            return None
        return iso_time(self._clock.wall() + monotonic - self._clock.now())


def latency(window: Window) -> dict[str, float | None]:
    """Mean, median and 95th percentile of the last measurements, in seconds."""
    median, high = window.quantiles((0.5, 0.95))
    return {"mean": _rounded(window.mean()), "p50": _rounded(median), "p95": _rounded(high)}


def _routable(view: EndpointView) -> bool:
    return view.routable and view.profile is not None


def _names(view: EndpointView, lines: Iterable[Line]) -> list[str]:
    """The models of some lines, as the endpoint calls them."""
    return sorted(view.models[line.model].name for line in lines if line.model in view.models)


def _reason(view: EndpointView, stuck: list[str], refused: list[str]) -> str | None:
    """Why an endpoint gets no requests, or only some, in words; None when all is well."""
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
    return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
