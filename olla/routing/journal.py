"""The entries of a decision log: the fleet as known, and each request with its outcome.

One JSON object per line, with its type in `kind`. Entries contain names, lengths and times, but
never prompts, responses, addresses or keys. `olla replay` reads them.
"""

import msgspec

from olla.fleet.instance import ModelInstance
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins

__all__ = ["Decided", "EndpointFacts", "FleetFacts", "JournalLine", "ModelFacts", "facts"]

_MODELS_MAX = 256
"""The maximum models per endpoint. Recently requested models come first."""


class ModelFacts(msgspec.Struct, frozen=True):
    """A model on an endpoint: canonical name, identity of the weights, bytes on disk, learned
    tokens per second of prompt and of output, and concurrent requests."""

    name: str
    identity: str
    size: float
    prompt_rate: float
    output_rate: float
    slots: int
    embedding: bool = False


class EndpointFacts(msgspec.Struct, frozen=True):
    """An endpoint: priority, bytes of memory for models (None: unknown), maximum loaded models,
    bytes per second of a load from disk and from the page cache. `ollama` is False for a server
    that does not load models on request."""

    name: str
    priority: int
    memory: float | None
    max_loaded: int
    cold_bandwidth: float
    warm_bandwidth: float
    models: tuple[ModelFacts, ...]
    ollama: bool = True


class FleetFacts(msgspec.Struct, frozen=True, tag="fleet", tag_field="kind"):
    """The fleet as known at `at` (Unix seconds)."""

    at: float
    policy: str
    endpoints: tuple[EndpointFacts, ...]


class Decided(msgspec.Struct, frozen=True, tag="request", tag_field="kind"):
    """One request. `at` is its arrival in Unix seconds.

    Tokens are the endpoint's counts, None without one. `predicted`, `first` and `whole` are seconds
    from arrival to the expected first byte, the first byte and the last byte. `queued` is the part
    spent in olla's queue.
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
    """Return the fleet by its twins and estimates, at `wall` Unix seconds."""
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
