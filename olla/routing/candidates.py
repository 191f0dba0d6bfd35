"""Who could serve a request: eligible endpoints, and why others are not.

Filtering, and the price of each when a policy goes by it; which candidate is best is a policy's
business, and what to do when there is none is `decision`'s.
"""

import enum
from collections.abc import Iterable
from math import inf

from olla.fleet.breaker import BreakerState
from olla.fleet.line import Line
from olla.fleet.snapshot import EndpointView
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins
from olla.routing.delay import price
from olla.routing.features import Features

__all__ = ["Candidate", "Exclusion", "candidates", "exclusion"]


class Exclusion(enum.Enum):
    """Why an endpoint is no candidate."""

    OTHER_TYPE = "other_type"
    NOT_PINNED = "not_pinned"
    TRIED = "tried"
    NO_MODEL = "model_not_available"
    UNROUTABLE = "unroutable"
    BREAKER_OPEN = "breaker_open"
    RESERVED = "reserved_for_embeddings"
    NOT_RESERVED = "embeddings_go_elsewhere"


class Candidate:
    """An endpoint that could serve the request.

    `model` is the canonical name it would serve (None without one) and `line` what is known of
    it there; `index` its place among the candidates. `delay` is the expected delay in seconds,
    or a lower bound of it for one that cannot be the best; 0 where no policy asked.
    """

    __slots__ = ("delay", "index", "line", "model", "twin")

    def __init__(
        self, twin: Twin, line: Line | None, model: str | None, index: int, delay: float = 0.0
    ) -> None:
        self.twin = twin
        self.line = line
        self.model = model
        self.index = index
        self.delay = delay

    @property
    def view(self) -> EndpointView:
        """What is known of the endpoint."""
        return self.twin.view

    @property
    def in_flight(self) -> int:
        """Olla's inference requests there."""
        return self.twin.in_flight

    @property
    def resident(self) -> bool | None:
        """Whether the model is in memory; None where the server does not tell."""
        if self.line is None or not self.twin.tells_residency:
            return None
        return self.line.resident

    @property
    def slot_free(self) -> bool:
        """Whether a request would start at once, were the model in memory."""
        line = self.line
        return line is None or len(line.flights) < line.slots.limit


def candidates(
    features: Features,
    twins: Twins,
    now: float,
    *,
    priced: bool = False,
    spillover: float = 0.0,
    reserved: frozenset[str] = frozenset(),
) -> list[Candidate]:
    """The endpoints that could serve the request now, in configuration order per model name.

    `priced` says that their delays are wanted; an endpoint of a lower priority is charged
    `spillover` seconds for each tier. `reserved` are the names of endpoints for embeddings.
    An endpoint whose breaker is open is left out as long as another one is there; when none is,
    trying it is the only chance, so it counts.
    """
    found: list[Candidate] = []
    last_chance: list[Candidate] = []
    seen: set[str] = set()
    several = len(features.models) > 1
    # Nearly every request, on nearly every endpoint: only what the endpoint is counts.
    plain = not (features.tried or reserved or features.pinned or features.profiles)
    dialect = features.dialect
    bound = inf
    for twin, line, model in _having(features, twins):
        why = None
        if not (plain and twin.clear and dialect in twin.dialects):
            why = exclusion(features, twin.view, reserved, on_trial=twin.on_trial)
            if why is not None and why is not Exclusion.BREAKER_OPEN:
                continue
        if several:
            if twin.name in seen:
                continue
            seen.add(twin.name)
        group = found if why is None else last_chance
        delay = 0.0
        if priced and line is not None:
            charge = spillover * twins.tier(twin.view) if twins.tiered else 0.0
            delay = charge + price(line, features, twins, now, bound - charge)
            if delay < bound and why is None:
                bound = delay
        group.append(Candidate(twin, line, model, len(group), delay))
    return found or last_chance


def exclusion(
    features: Features,
    view: EndpointView,
    reserved: frozenset[str] = frozenset(),
    *,
    on_trial: bool = False,
) -> Exclusion | None:
    """Why an endpoint that has the model may not serve the request now; None when it may.

    `on_trial` says that a request is under way that tries it out.
    """
    profile = view.profile
    name = view.spec.name
    if features.pinned is not None and name != features.pinned:
        return Exclusion.NOT_PINNED
    if profile is not None:
        if features.profiles is None:
            if features.dialect not in profile.dialects:
                return Exclusion.OTHER_TYPE
        elif profile.name not in features.profiles:
            return Exclusion.OTHER_TYPE
    if not view.health.routable or profile is None:
        return Exclusion.UNROUTABLE
    if name in features.tried:
        return Exclusion.TRIED
    if reserved and features.models and (name in reserved) is not features.embedding:
        return Exclusion.NOT_RESERVED if features.embedding else Exclusion.RESERVED
    if view.breaker is BreakerState.CLOSED:
        return None
    if view.breaker is BreakerState.OPEN or on_trial:
        return Exclusion.BREAKER_OPEN  # one trial at a time, whatever began before it
    return None


def _having(features: Features, twins: Twins) -> Iterable[tuple[Twin, Line | None, str | None]]:
    models = features.models
    if not models:
        return [(twins.by_name[view.spec.name], None, None) for view in twins.snapshot.endpoints]
    if len(models) == 1:
        model = models[0]
        return [(line.twin, line, model) for line in twins.lines(model)]
    return [(line.twin, line, model) for model in models for line in twins.lines(model)]
