"""What a decision log holds: the fleet as it was known, and each request with what came of it.

One JSON object a line, told apart by `kind`. Names, lengths and times only: never a prompt, an
answer, an address or a key. `olla replay` reads it.
"""

import msgspec

from olla.fleet.instance import ModelInstance
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins

__all__ = ["Decided", "EndpointFacts", "FleetFacts", "JournalLine", "ModelFacts", "facts"]

_MODELS_MAX = 256
"""Models of an endpoint that are told, those that were asked for before the others."""


class ModelFacts(msgspec.Struct, frozen=True):
    """A model on an endpoint: canonical name, identity of the weights, bytes on disk; learned
    tokens per second of prompt and of output, and how many requests at a time."""

    name: str
    identity: str
    size: float
    prompt_rate: float
    output_rate: float
    slots: int
    embedding: bool = False


class EndpointFacts(msgspec.Struct, frozen=True):
    """An endpoint: priority, bytes of memory for models (None: not known), models in memory at a
    time, bytes per second of a load from disk and from the page cache. `ollama` is False for a
    server that serves its models without loading."""

    name: str
    priority: int
    memory: float | None
    max_loaded: int
    cold_bandwidth: float
    warm_bandwidth: float
    models: tuple[ModelFacts, ...]
    ollama: bool = True


class FleetFacts(msgspec.Struct, frozen=True, tag="fleet", tag_field="kind"):
    """The fleet as it was known at `at` (Unix seconds)."""

    at: float
    policy: str
    endpoints: tuple[EndpointFacts, ...]


class Decided(msgspec.Struct, frozen=True, tag="request", tag_field="kind"):
    """One request. `at` is its arrival in Unix seconds; tokens are as the endpoint counted them,
    None where it did not; `predicted`, `first` and `whole` are seconds from its arrival, to the
    expected and the real first byte and to the last; `queued` how many of them it waited in olla.
    """

    at: float
    model: str
    operation: str
    endpoint: str | None
    reason: str
    status: int
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_options: tuple[tuple[str, float], ...] = ()
    predicted: float | None = None
    queued: float | None = None
    first: float | None = None
    whole: float | None = None


JournalLine = FleetFacts | Decided


def facts(twins: Twins, policy: str, wall: float) -> FleetFacts:
    """The fleet as its twins and estimates have it, at `wall` Unix seconds."""
    return FleetFacts(
        wall,
        policy,
        tuple(_endpoint(twins.by_name[view.name]) for view in twins.snapshot.endpoints),
    )


def _endpoint(twin: Twin) -> EndpointFacts:
    gigabyte = 1e9
    memory = twin.capacity
    return EndpointFacts(
        name=twin.name,
        priority=twin.view.spec.priority,
        memory=memory if 0 < memory < float("inf") else None,
        max_loaded=twin.max_loaded,
        cold_bandwidth=gigabyte / twin.rates.load_seconds(gigabyte, warm=False),
        warm_bandwidth=gigabyte / twin.rates.load_seconds(gigabyte, warm=True),
        models=tuple(_model(name, instance) for name, instance in twin.names.first(_MODELS_MAX)),
        ollama=twin.tells_residency,
    )


def _model(name: str, instance: ModelInstance) -> ModelFacts:
    instance.rates.refresh()
    return ModelFacts(
        name=name,
        identity=instance.identity,
        size=instance.size,
        prompt_rate=1 / instance.rates.prefill,
        output_rate=1 / instance.rates.decode,
        slots=instance.slots.limit,
        embedding=instance.embedding,
    )
