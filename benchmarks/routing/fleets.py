"""The fleets: nodes with their rates and memory, and the models on them.

A node reads `prefill / N` prompt tokens per second of a model of N bytes, and generates `decode /
N`. The rates are of the order that llama.cpp reaches with four-bit models on the named cards.
"""

from random import Random

from olla.fleet.endpoint import EndpointSpec
from olla.simulation.events import NodeLimits
from olla.simulation.machine import Machine
from olla.simulation.model_catalogue import ModelSpec

__all__ = ["EMBEDDER", "MODELS", "equal", "huge", "huge_models", "machine", "unequal"]

GB = 10**9


def _model(number: int, name: str, gigabytes: float) -> ModelSpec:
    return ModelSpec(name, int(gigabytes * GB), digest=f"d{number}", context=8192)


MODELS = tuple(
    _model(number, name, gigabytes)
    for number, (name, gigabytes) in enumerate(
        (
            ("llama3.1:8b", 4.9),
            ("qwen2.5:14b", 9.0),
            ("qwen2.5:7b", 4.7),
            ("llama3.2:3b", 2.0),
            ("qwen2.5:32b", 20.0),
            ("mistral:7b", 4.1),
            ("gemma2:9b", 5.4),
            ("llama3.3:70b", 42.5),
            ("codellama:13b", 7.4),
            ("phi3:3.8b", 2.3),
            ("llama3.2:1b", 1.3),
            ("qwen2.5:0.5b", 0.4),
        )
    )
)
"""Twelve models, the most popular first."""

EMBEDDER = ModelSpec(
    "nomic-embed-text:latest", 274_000_000, digest="e", context=2048, embedding=True
)

_NODES = (
    # memory in GB, prefill and decode in tokens/s times bytes, disk in bytes/s
    (80, 28e12, 1.2e12, 0.8e9),  # two data-centre cards of 80 GB
    (80, 28e12, 1.2e12, 0.8e9),
    (48, 14e12, 0.7e12, 0.7e9),  # two workstation cards of 48 GB
    (48, 14e12, 0.7e12, 0.7e9),
    (24, 12e12, 0.75e12, 0.6e9),  # two gaming cards of 24 GB
    (24, 12e12, 0.75e12, 0.6e9),
    (24, 6e12, 0.5e12, 0.5e9),  # an older one
    (16, 4e12, 0.3e12, 0.4e9),  # and a small one
)
_SLOTS = 2


def machine(
    name: str,
    shape: tuple[float, float, float, float],
    models: tuple[ModelSpec, ...],
    *,
    slots: int = _SLOTS,
    configured: bool = True,
    configured_bandwidth: float | None = None,
) -> Machine:
    """Return a node. With `configured` the operator has set its slots; `configured_bandwidth` is
    the configured disk speed in bytes per second, which may be wrong."""
    memory, prefill, decode, disk = shape
    vram = int(memory * GB)
    return Machine(
        EndpointSpec(
            name,
            name,
            1,
            num_parallel=slots if configured else None,
            load_bandwidth=configured_bandwidth,
        ),
        NodeLimits(
            vram=vram,
            num_parallel=slots,
            load_bandwidth=disk,
            warm_bandwidth=2 * disk,  # from the page cache
        ),
        prefill,
        decode,
        tuple(each for each in models if each.size * 1.2 < 0.8 * vram),
    )


def unequal(
    *,
    configured: bool = True,
    misjudged: float = 1.0,
    more: tuple[ModelSpec, ...] = (),
) -> list[Machine]:
    """Return eight nodes of 16 to 80 GB. `misjudged` is the factor by which the configured disk
    speeds are wrong, alternately too high and too low; with 1 none is configured."""
    return [
        machine(
            f"node-{number}",
            shape,
            (*MODELS, *more),
            configured=configured,
            configured_bandwidth=(
                None
                if misjudged == 1.0
                else shape[3] * (misjudged if number % 2 else 1 / misjudged)
            ),
        )
        for number, shape in enumerate(_NODES)
    ]


def equal() -> list[Machine]:
    """Return eight identical nodes of 64 GB."""
    return [machine(f"node-{number}", (64, *_NODES[2][1:]), MODELS) for number in range(8)]


def huge_models(count: int = 300) -> tuple[ModelSpec, ...]:
    """Return many models with the sizes of the twelve."""
    return tuple(
        _model(number, f"model-{number}:latest", MODELS[number % len(MODELS)].size / GB)
        for number in range(count)
    )


def huge(nodes: int = 200, models: int = 300, on_each: int = 30) -> list[Machine]:
    """Return many nodes, each with some of many models on disk."""
    rng, available = Random(1), huge_models(models)
    return [
        machine(
            f"node-{number}", _NODES[number % len(_NODES)], tuple(rng.sample(available, on_each))
        )
        for number in range(nodes)
    ]
