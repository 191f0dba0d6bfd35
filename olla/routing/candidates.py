"""Who could serve a request: features of the request, eligible endpoints, and why others are not.

Filtering only; which candidate is best is a policy's business, and what to do when there is none
is `decision`'s.
"""

import enum
from collections.abc import Iterator, Sequence

import msgspec

from olla.fleet.breaker import BreakerState
from olla.fleet.load import Load
from olla.fleet.snapshot import EndpointView, Snapshot

__all__ = ["Candidate", "Exclusion", "Features", "candidates", "exclusion"]


class Features(msgspec.Struct, frozen=True):
    """What routing may know of a request.

    `models` are the canonical names any of which will do, best first: one for a plain name,
    several for an alias, none where the operation takes no model. `profiles` are the kinds of
    server that may serve it (None: any that speaks `dialect`). `tried` are the endpoints that
    failed this request already, `pinned` the one the caller insists on. `ticket` is a running
    number: the only chance there is, so that the same input gives the same decision.
    """

    models: tuple[str, ...]
    dialect: str
    profiles: frozenset[str] | None = None
    tried: tuple[str, ...] = ()
    pinned: str | None = None
    ticket: int = 0


class Exclusion(enum.Enum):
    """Why an endpoint is no candidate."""

    OTHER_TYPE = "other_type"
    NOT_PINNED = "not_pinned"
    TRIED = "tried"
    NO_MODEL = "model_not_available"
    UNROUTABLE = "unroutable"
    BREAKER_OPEN = "breaker_open"


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint that could serve the request.

    `model` is the canonical name it would serve (None without one); `index` its place among the
    candidates; `in_flight` olla's inference requests there, `in_flight_model` those for this
    model; `slots` how many it works on at a time for one model, None when not known; `resident`
    whether the model is in memory, None where the server does not tell.
    """

    view: EndpointView
    model: str | None
    index: int
    in_flight: int
    in_flight_model: int
    slots: int | None
    resident: bool | None

    @property
    def slot_free(self) -> bool:
        """Whether a request would start at once, were the model in memory."""
        return self.slots is None or self.in_flight_model < self.slots


_OLLAMA_SLOTS = 1
"""Ollama's default `OLLAMA_NUM_PARALLEL`."""


def candidates(features: Features, snapshot: Snapshot, load: Load) -> list[Candidate]:
    """The endpoints that could serve the request now, in configuration order per model name.

    An endpoint whose breaker is open is left out as long as another one is there; when none is,
    trying it is the only chance, so it counts.
    """
    found: list[Candidate] = []
    last_chance: list[Candidate] = []
    seen: set[str] = set()
    for view, model in _having(features, snapshot):
        if view.name in seen:
            continue
        seen.add(view.name)
        why = exclusion(features, view, load)
        if why is None:
            found.append(_candidate(view, model, len(found), load))
        elif why is Exclusion.BREAKER_OPEN:
            last_chance.append(_candidate(view, model, len(last_chance), load))
    return found or last_chance


def exclusion(features: Features, view: EndpointView, load: Load) -> Exclusion | None:
    """Why an endpoint that has the model may not serve the request now; None when it may."""
    profile = view.profile
    if features.pinned is not None and view.spec.name != features.pinned:
        return Exclusion.NOT_PINNED
    if profile is not None:
        if features.profiles is None:
            if features.dialect not in profile.dialects:
                return Exclusion.OTHER_TYPE
        elif profile.name not in features.profiles:
            return Exclusion.OTHER_TYPE
    if not view.health.routable or profile is None:
        return Exclusion.UNROUTABLE
    if view.spec.name in features.tried:
        return Exclusion.TRIED
    if view.breaker is BreakerState.OPEN:
        return Exclusion.BREAKER_OPEN
    if view.breaker is BreakerState.HALF_OPEN and load.on_trial(view.spec.name):
        return Exclusion.BREAKER_OPEN  # one trial at a time, whatever began before it
    return None


def _having(features: Features, snapshot: Snapshot) -> Iterator[tuple[EndpointView, str | None]]:
    if not features.models:
        for view in snapshot.endpoints:
            yield view, None
    for model in features.models:
        for view in _with_model(model, snapshot):
            yield view, model


def _with_model(model: str, snapshot: Snapshot) -> Sequence[EndpointView]:
    return snapshot.by_model.get(model, ())


def _candidate(view: EndpointView, model: str | None, index: int, load: Load) -> Candidate:
    spec = view.spec
    slots = spec.num_parallel
    resident: bool | None = None
    if view.profile is not None and view.profile.tells_residency:
        slots = slots or _OLLAMA_SLOTS
        resident = model in view.resident
    return Candidate(
        view=view,
        model=model,
        index=index,
        in_flight=load.on(spec.name),
        in_flight_model=load.on_model(spec.name, model) if model is not None else 0,
        slots=slots,
        resident=resident,
    )
