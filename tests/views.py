"""Hand-made endpoints for tests of what decides."""

from collections.abc import Iterable

from olla.fleet.breaker import BreakerState
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.instance import InFlightRequest
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Model, ResidentModel, Snapshot
from olla.fleet.twins import Twins
from olla.routing.candidates import Candidate
from olla.routing.features import Features

__all__ = ["MODEL", "candidate", "features", "fleet", "send", "twins", "view"]

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
    ramp: int = 0,
    models_at: float | None = 0.0,
    resident_at: float | None = 0.0,
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
        ramp=ramp,
        models={canonical(each): Model(each) for each in models},
        resident={canonical(each): ResidentModel(each) for each in resident},
        models_at=models_at,
        resident_at=resident_at,
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


def twins(*views: EndpointView, now: float = 0.0) -> Twins:
    """What olla keeps of a fleet of them."""
    kept = Twins()
    kept.follow(Snapshot.of(views), now)
    return kept


def send(kept: Twins, name: str, model: str = MODEL, count: int = 1) -> list[InFlightRequest]:
    """Let requests be in flight on an endpoint for a model."""
    twin = kept.by_name[name]
    instance = twin.names[model]
    in_flight = []
    for _ in range(count):
        flight = InFlightRequest(instance, 0.0, 1.0)
        twin.sent(flight, 0.0)
        in_flight.append(flight)
    return in_flight


def candidate(
    name: str = "a",
    index: int = 0,
    *,
    in_flight: int = 0,
    in_flight_model: int | None = None,
    slots: int | None = 1,
    resident: bool | None = False,
    priority: int = 100,
    delay: float = 0.0,
) -> Candidate:
    """A candidate with this load. Without slots it is a server that does not tell residency."""
    profile = "ollama" if resident is not None else "vllm"
    there = view(
        name,
        index,
        priority=priority,
        profile=profile,
        num_parallel=slots or 1000,
        resident=["m:latest"] if resident else [],
    )
    kept = twins(there)
    twin = kept.by_name[name]
    instance = twin.names[MODEL]
    for _ in range(in_flight if in_flight_model is None else in_flight_model):
        instance.in_flight[InFlightRequest(instance, 0.0, 1.0)] = None
    twin.in_flight = in_flight
    return Candidate(twin, instance, MODEL, index, delay)
