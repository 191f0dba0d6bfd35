"""Find the endpoints that can serve a request, and the reasons against the others.

This module filters, and computes delays for policies that need them. A policy chooses the best
candidate; `decision` handles requests without candidates.
"""

import enum
from collections.abc import Iterable, Iterator
from math import inf

from olla.fleet.breaker import BreakerState
from olla.fleet.instance import ModelInstance
from olla.fleet.snapshot import EndpointView
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins
from olla.routing.delay import price
from olla.routing.features import Features

__all__ = ["Candidate", "Exclusion", "candidates", "exclusion", "reluctance", "speaks"]


TRANSLATION_SECONDS = 0.001
"""The cost of a translation. An endpoint that speaks the client's dialect wins a tie."""
_SCANNED_MAX = 16
"""Up to this many endpoints of a model get a delay each; of more, the fastest are first."""
_TIES_MAX = 16
"""This many candidates as good as the best suffice for a choice."""

_Having = tuple[ModelInstance | None, Twin, str | None]


class Exclusion(enum.Enum):
    """The reason why an endpoint is not a candidate."""

    OTHER_TYPE = "other_type"
    NOT_PINNED = "not_pinned"
    NOT_ALLOWED = "not_for_this_key"
    TRIED = "tried"
    NO_MODEL = "model_not_available"
    UNROUTABLE = "unroutable"
    BREAKER_OPEN = "breaker_open"
    STUCK = "stuck"
    REFUSED = "refused_lately"
    SLOW_START = "slow_start"
    RESERVED = "reserved_for_embeddings"
    NOT_RESERVED = "embeddings_go_elsewhere"


class Candidate:
    """An endpoint that can serve the request.

    `model` is the canonical name that it would serve (None without a model), `instance` the model
    there, and `index` its place among the candidates. `delay` is the expected delay in seconds, or
    a lower bound if it cannot be the best; 0 if no policy needs it. `ready`: the model is loaded
    with the options of the request.
    """

    __slots__ = ("delay", "index", "instance", "model", "ready", "twin")

    def __init__(
        self,
        twin: Twin,
        instance: ModelInstance | None,
        model: str | None,
        index: int,
        delay: float = 0.0,
        ready: bool = False,
    ) -> None:
        self.ready = ready
        self.twin = twin
        self.instance = instance
        self.model = model
        self.index = index
        self.delay = delay

    @property
    def view(self) -> EndpointView:
        """The endpoint's view in the snapshot."""
        return self.twin.view

    @property
    def in_flight(self) -> int:
        """The inference requests in flight there."""
        return self.twin.in_flight

    @property
    def resident(self) -> bool | None:
        """Whether the model is loaded; None if the server does not report it."""
        if self.instance is None or not self.twin.tells_residency:
            return None
        return self.instance.resident

    @property
    def slot_free(self) -> bool:
        """Whether a request would start at once if the model were loaded."""
        instance = self.instance
        return instance is None or len(instance.in_flight) < instance.slots.limit


def candidates(
    features: Features,
    twins: Twins,
    now: float,
    *,
    priced: bool = False,
    spillover: float = 0.0,
    reserved: frozenset[str] = frozenset(),
    everyone: bool = False,
) -> list[Candidate]:
    """Return the endpoints that can serve the request now, in configuration order per model.

    With `priced`, they get delays; an endpoint of a lower priority is charged `spillover` seconds
    per tier. `reserved` are the names of endpoints for embeddings. An endpoint is avoided if its
    breaker is open, if the model is stuck there, or if it recovers and has its limit of requests.
    It remains a candidate if there are only such endpoints, because trying one is then the only
    chance. If many endpoints have the model, those whose prefill alone takes longer than the best
    are omitted, except with `everyone`.
    """
    found: list[Candidate] = []
    last_chance: list[Candidate] = []
    models, profiles, dialect = features.models, features.profiles, features.dialect
    # Nearly every request, on nearly every endpoint: only what the endpoint is counts.
    plain = not (features.tried or reserved or features.pinned) and features.allowed is None
    bound = inf
    ties = 0
    ordered = priced and not everyone and len(models) == 1
    ordered = ordered and len(twins.instances(models[0])) > _SCANNED_MAX
    having = _cached_first(features, twins, now) if ordered else _having(features, twins)
    tokens = features.prompt_tokens
    for instance, twin, model in having:
        if (
            ordered
            and instance is not None
            and (tokens * instance.rates.prefill > bound or ties >= _TIES_MAX)
            and twin.name not in features.cached
        ):
            break
        why = None
        if not (
            plain
            and twin.clear
            and (
                (dialect in twin.dialects or features.also in twin.translatable)
                if profiles is None
                else twin.kind in profiles
            )
        ):
            if exclusion(features, twin.view, reserved) is not None:
                continue
            why = reluctance(twin, instance, now)
        if len(models) > 1 and any(each.twin is twin for each in (*found, *last_chance)):
            continue
        group = found if why is None else last_chance
        delay = 0.0
        ready = instance is not None and instance.ready(features.load_options, now)
        if priced and instance is not None:
            charge = spillover * twins.tier(twin.view) if twins.tiered else 0.0
            if profiles is None and dialect not in twin.dialects:
                charge += TRANSLATION_SECONDS
            delay = charge + price(instance, features, twins, now, ready, bound - charge)
            if why is None and delay <= bound:
                ties = ties + 1 if delay == bound else 0
                bound = delay
        group.append(Candidate(twin, instance, model, len(group), delay, ready))
    return found or last_chance


def exclusion(
    features: Features, view: EndpointView, reserved: frozenset[str] = frozenset()
) -> Exclusion | None:
    """Return why an endpoint with the model may not serve the request; None if it may."""
    profile = view.profile
    name = view.spec.name
    if features.pinned is not None and name != features.pinned:
        return Exclusion.NOT_PINNED
    if features.allowed is not None and name not in features.allowed:
        return Exclusion.NOT_ALLOWED
    if profile is not None:
        if features.profiles is None:
            if not speaks(features, view):
                return Exclusion.OTHER_TYPE
        elif profile.name not in features.profiles:
            return Exclusion.OTHER_TYPE
    if not view.health.routable or profile is None:
        return Exclusion.UNROUTABLE
    if name in features.tried:
        return Exclusion.TRIED
    if reserved and features.models and (name in reserved) is not features.embedding:
        return Exclusion.NOT_RESERVED if features.embedding else Exclusion.RESERVED
    return None


def speaks(features: Features, view: EndpointView) -> bool:
    """Return whether an endpoint of a known type accepts the request's dialect, or a
    translation."""
    if view.profile is None:
        return False
    dialects = view.profile.dialects
    return features.dialect in dialects or (view.spec.translates and features.also in dialects)


def reluctance(twin: Twin, instance: ModelInstance | None, now: float) -> Exclusion | None:
    """Return why an endpoint should be avoided while others can serve; None if it need not be.
    `instance` is the model there."""
    breaker = twin.view.breaker
    if breaker is BreakerState.OPEN or (breaker is BreakerState.HALF_OPEN and twin.on_trial):
        return Exclusion.BREAKER_OPEN  # one trial at a time, whatever began before it
    if instance is not None:
        if instance in twin.stuck:
            return Exclusion.STUCK
        if now < instance.refused_until:
            return Exclusion.REFUSED
    ramp = twin.view.ramp
    return Exclusion.SLOW_START if ramp and twin.in_flight >= ramp else None


def _having(features: Features, twins: Twins) -> Iterable[_Having]:
    models = features.models
    if not models:
        return [(None, twins.by_name[view.spec.name], None) for view in twins.snapshot.endpoints]
    if len(models) == 1:
        model = models[0]
        return [(instance, instance.twin, model) for instance in twins.instances(model)]
    return [
        (instance, instance.twin, model) for model in models for instance in twins.instances(model)
    ]


def _cached_first(features: Features, twins: Twins, now: float) -> Iterator[_Having]:
    """Return the instances whose prompt cache helps, then the others, the fastest readers first."""
    model = features.models[0]
    instances = twins.by_speed(model, now)
    for name in features.cached:
        twin = twins.by_name.get(name)
        if twin is not None and model in twin.names:
            yield twin.names[model], twin, model
    for instance in instances:
        if instance.twin.name not in features.cached:
            yield instance, instance.twin, model
