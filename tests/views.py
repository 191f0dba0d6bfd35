"""Hand-made endpoints for tests of what decides."""

from collections.abc import Iterable

from olla.fleet.breaker import BreakerState
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Instance, Model, Snapshot
from olla.routing.candidates import Candidate, Features

__all__ = ["MODEL", "candidate", "features", "fleet", "view"]

MODEL = canonical("m")


def view(
    name: str,
    position: int = 0,
    *,
    models: Iterable[str] = ("m:latest",),
    resident: Iterable[str] = (),
    profile: str = "ollama",
    health: Health = Health.HEALTHY,
    breaker: BreakerState = BreakerState.CLOSED,
    priority: int = 100,
    num_parallel: int | None = None,
    models_at: float | None = 0.0,
) -> EndpointView:
    """An endpoint that is known."""
    return EndpointView(
        spec=EndpointSpec(
            name=name, host=name, port=1, priority=priority, num_parallel=num_parallel
        ),
        position=position,
        profile=PROFILES[profile],
        health=health,
        breaker=breaker,
        models={canonical(each): Model(each) for each in models},
        resident={canonical(each): Instance(each) for each in resident},
        models_at=models_at,
    )


def fleet(*views: EndpointView) -> Snapshot:
    """A fleet of them."""
    return Snapshot.of(views)


def features(
    *models: str,
    tried: tuple[str, ...] = (),
    ticket: int = 0,
    profiles: frozenset[str] | None = None,
    pinned: str | None = None,
    dialect: str = "ollama",
) -> Features:
    """A request for models (`m` when none is named)."""
    names = tuple(canonical(each) for each in models) or (MODEL,)
    return Features(
        models=names,
        dialect=dialect,
        profiles=profiles,
        tried=tried,
        pinned=pinned,
        ticket=ticket,
    )


def candidate(
    name: str = "a",
    index: int = 0,
    *,
    in_flight: int = 0,
    in_flight_model: int | None = None,
    slots: int | None = 1,
    resident: bool | None = False,
    priority: int = 100,
) -> Candidate:
    """A candidate with this load."""
    return Candidate(
        view=view(name, index, priority=priority),
        model=MODEL,
        index=index,
        in_flight=in_flight,
        in_flight_model=in_flight if in_flight_model is None else in_flight_model,
        slots=slots,
        resident=resident,
    )
