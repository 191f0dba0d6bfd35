"""The decision: one endpoint with a reason, or a refusal with one.

Pure: filter, order, choose. Nothing is remembered; a retry asks again with the failed endpoint
among `tried`.
"""

import enum
from collections.abc import Sequence

import msgspec

from olla.failures import Failure, Kind
from olla.fleet.health import Health
from olla.fleet.load import Load
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.routing.candidates import Candidate, Exclusion, Features, candidates, exclusion
from olla.routing.policy import Policy

__all__ = [
    "Choose",
    "Considered",
    "Fallback",
    "Reason",
    "Refuse",
    "RoutingOptions",
    "Strategy",
    "decide",
    "explain",
]

_RETRY_AFTER_MIN = 1.0
_RETRY_AFTER_MAX = 30.0
"""Seconds. Clients of the OpenAI family sleep as long as they are told, so keep it short."""


class Strategy(enum.Enum):
    """What to do with a model that is nowhere in the fleet. The value is the header's word."""

    STRICT = "strict"
    """Refuse; whoever asks has the endpoints asked again first."""
    OPTIMISTIC = "optimistic"
    """Perhaps fall back to endpoints that do not list it; see `Fallback`."""
    DISCOVERY = "discovery"
    """The same as strict, which asks again as well."""


class Fallback(enum.Enum):
    """Where an optimistic strategy sends a model that no endpoint lists."""

    NONE = "none"
    COMPATIBLE_ONLY = "compatible_only"
    """Nowhere: an endpoint that does not list a model is not compatible with it."""
    ALL = "all"
    """To any routable endpoint of the right type."""


class RoutingOptions(msgspec.Struct, frozen=True):
    """How to treat models that no endpoint lists."""

    strategy: Strategy = Strategy.STRICT
    fallback: Fallback = Fallback.COMPATIBLE_ONLY


class Reason(enum.Enum):
    """Why it was decided so. The value is the header's word."""

    MODEL_FOUND = "model_found"
    MODEL_LOADED = "model_loaded"
    COLD_LOAD = "cold_load"
    NO_MODEL = "no_model_needed"
    FALLBACK = "model_not_found_fallback"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_UNAVAILABLE = "model_unavailable"
    NO_ENDPOINT = "no_endpoint"


class Choose(msgspec.Struct, frozen=True):
    """Send it there. `fallback` when the endpoint does not list the model."""

    view: EndpointView
    model: str | None
    reason: Reason
    fallback: bool = False


class Refuse(msgspec.Struct, frozen=True):
    """Send it nowhere."""

    failure: Failure
    reason: Reason


class Considered(msgspec.Struct, frozen=True):
    """One endpoint as `explain` saw it: its place in the order, or why it is none."""

    endpoint: str
    key: tuple[float, ...] | None = None
    exclusion: Exclusion | None = None


def decide(
    features: Features,
    snapshot: Snapshot,
    load: Load,
    policy: Policy,
    options: RoutingOptions,
    asked_for: str,
    now: float,
) -> Choose | Refuse:
    """Where the request goes now (`now`: monotonic seconds).

    `asked_for` is the model as the client spelled it, for the message of a refusal.
    """
    able = candidates(features, snapshot, load)
    if able:
        best = _best(able, features, policy)
        return Choose(best.view, best.model, _reason(best))
    if options.strategy is Strategy.OPTIMISTIC and options.fallback is Fallback.ALL:
        anyone = msgspec.structs.replace(features, models=())
        able = candidates(anyone, snapshot, load)
        if able:
            best = _best(able, features, policy)
            return Choose(best.view, None, Reason.FALLBACK, fallback=True)
    return _refuse(features, snapshot, asked_for, now)


def explain(features: Features, snapshot: Snapshot, load: Load, policy: Policy) -> list[Considered]:
    """Every endpoint of the fleet with its place in the order or its exclusion: best first."""
    able = candidates(features, snapshot, load)
    count = len(able)
    order = sorted(able, key=lambda each: policy.key(each, features, count))
    rows = [Considered(each.view.name, policy.key(each, features, count)) for each in order]
    chosen = {row.endpoint for row in rows}
    for view in snapshot.endpoints:
        if view.name not in chosen:
            why = exclusion(features, view, load)
            rows.append(Considered(view.name, exclusion=why or Exclusion.NO_MODEL))
    return rows


def _best(able: Sequence[Candidate], features: Features, policy: Policy) -> Candidate:
    if len(able) == 1:
        return able[0]
    count = len(able)
    return min(able, key=lambda each: policy.key(each, features, count))


def _reason(best: Candidate) -> Reason:
    if best.model is None:
        return Reason.NO_MODEL
    if best.resident is None:
        return Reason.MODEL_FOUND
    return Reason.MODEL_LOADED if best.resident else Reason.COLD_LOAD


def _refuse(features: Features, snapshot: Snapshot, asked_for: str, now: float) -> Refuse:
    if features.pinned is not None and features.pinned not in snapshot.by_name:
        names = ", ".join(view.name for view in snapshot.endpoints)
        return Refuse(
            Failure(
                Kind.NOT_FOUND, f"no endpoint is named '{features.pinned}'; there are: {names}"
            ),
            Reason.NO_ENDPOINT,
        )
    in_scope = [view for view in snapshot.endpoints if _in_scope(features, view)]
    having = [
        view
        for view in in_scope
        if not features.models or any(model in view.models for model in features.models)
    ]
    # A model is "not found" only when somebody could tell: with every endpoint down or not yet
    # asked, the honest answer is that it cannot be served now.
    if features.models and not having and any(view.models_at is not None for view in in_scope):
        return Refuse(
            Failure(
                Kind.MODEL_NOT_FOUND,
                f"model '{asked_for}' not found on any endpoint; "
                f"pull it on a node first: ollama pull {asked_for}",
            ),
            Reason.MODEL_NOT_FOUND,
        )
    concerned = having or in_scope
    retry_after = _retry_after(concerned, now)
    states = _states(concerned)
    if features.models:
        return Refuse(
            Failure(
                Kind.MODEL_UNAVAILABLE,
                f"model '{asked_for}' is on no endpoint that can serve it now ({states}); "
                "try again shortly",
                retry_after=retry_after,
            ),
            Reason.MODEL_UNAVAILABLE,
        )
    return Refuse(
        Failure(
            Kind.NO_ENDPOINT,
            f"no endpoint can serve this now ({states}); try again shortly",
            retry_after=retry_after,
        ),
        Reason.NO_ENDPOINT,
    )


def _in_scope(features: Features, view: EndpointView) -> bool:
    if features.pinned is not None and view.name != features.pinned:
        return False
    if view.profile is None:
        return True
    if features.profiles is None:
        return features.dialect in view.profile.dialects
    return view.profile.name in features.profiles


def _states(views: Sequence[EndpointView]) -> str:
    if not views:
        return "none of that type is configured"
    shown = ", ".join(f"{view.name}: {view.health.value}" for view in views[:8])
    return shown if len(views) <= 8 else f"{shown}, and {len(views) - 8} more"


def _retry_after(views: Sequence[EndpointView], now: float) -> float:
    waits = [
        at - now
        for view in views
        for at in (view.retry_at if view.health is Health.RATE_LIMITED else view.next_check_at,)
        if at is not None
    ]
    soonest = min(waits, default=_RETRY_AFTER_MIN)
    return min(max(soonest, _RETRY_AFTER_MIN), _RETRY_AFTER_MAX)
