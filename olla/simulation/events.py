"""Define the input and output of a node's scheduler: limits, jobs, outcomes, loaded models.

`node` has the rules.
"""

import msgspec

from olla.simulation.load_options import Options
from olla.simulation.model_catalogue import ModelSpec

__all__ = [
    "Job",
    "JobRefused",
    "LoadAborted",
    "LoadBegan",
    "ModelLoaded",
    "NodeLimits",
    "Outcome",
    "Resident",
    "Started",
    "Unloaded",
]


class NodeLimits(msgspec.Struct, frozen=True):
    """What a node is made of.

    `vram` is bytes; bandwidths are bytes per second, the warm one for a model that was unloaded
    less than `warm_seconds` ago and is still in the page cache; `keep_alive` is seconds
    (infinity: for ever).
    """

    vram: int = 24 << 30
    num_parallel: int = 1
    max_loaded_models: int = 3
    max_queue: int = 512
    load_bandwidth: float = 1.0e9
    warm_bandwidth: float = 4.0e9
    warm_seconds: float = 600.0
    keep_alive: float = 300.0


class Job(msgspec.Struct, frozen=True):
    """A request, as the scheduler sees it.

    `options` are the load options it names; `keep_alive` seconds (infinity: for ever), None when
    it does not say; `needs_slot` is false for one that only loads.
    """

    id: int
    model: ModelSpec
    options: Options = ()
    keep_alive: float | None = None
    needs_slot: bool = True


class Started(msgspec.Struct, frozen=True):
    """The job may work.

    `load_seconds` is how long it waited until its model was there (for other loads and for
    victims too, as Ollama's own `load_duration` has it), without the wait for a slot; `gpu_share`
    how much of the model is in video memory.
    """

    job: Job
    at: float
    load_seconds: float
    gpu_share: float


class JobRefused(msgspec.Struct, frozen=True):
    """The queue is full."""

    job: Job
    at: float


class LoadBegan(msgspec.Struct, frozen=True):
    """A model is being loaded, until `ready_at` unless the client leaves."""

    model: ModelSpec
    at: float
    ready_at: float


class ModelLoaded(msgspec.Struct, frozen=True):
    """A model has been loaded."""

    model: ModelSpec
    at: float


class LoadAborted(msgspec.Struct, frozen=True):
    """A load was given up because the client that caused it left."""

    model: ModelSpec
    at: float


class Unloaded(msgspec.Struct, frozen=True):
    """A model was unloaded."""

    model: ModelSpec
    at: float


Outcome = Started | JobRefused | LoadBegan | ModelLoaded | LoadAborted | Unloaded


class Resident(msgspec.Struct, frozen=True):
    """A model in memory, as `/api/ps` shows it. Times are the node's seconds."""

    name: str
    model: ModelSpec
    size: int
    size_vram: int
    context_length: int
    expires_at: float
    active: int
    waiting: int
