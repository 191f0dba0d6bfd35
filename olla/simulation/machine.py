"""Define the parts of a simulated fleet: machines, arrivals, outages and results."""

from math import inf

import msgspec

from olla.admission.queue_types import Lease, Ticket
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.instance import ModelLoad
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Model
from olla.routing.features import Features
from olla.simulation.events import Job, NodeLimits
from olla.simulation.load_options import Options
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.node import Node

__all__ = ["Arrival", "Machine", "Outage", "Result", "RunningMachine", "RunningRequest"]


class Machine(msgspec.Struct, frozen=True):
    """A node and what stands on it.

    `prefill` and `decode` are tokens per second times bytes of model: a model of N bytes reads
    `prefill / N` tokens a second. `told` is what the operator says of it in the configuration
    (the rest of the spec is the harness's), `speed` by model name stands in for the rates.
    """

    spec: EndpointSpec
    limits: NodeLimits
    prefill: float
    decode: float
    models: tuple[ModelSpec, ...]
    rates: tuple[tuple[str, float, float], ...] = ()
    """Model name, prompt and output tokens a second, where they are known one by one."""


class Arrival(msgspec.Struct, frozen=True):
    """One request: when, for what, how long; `patience` is how many seconds its client waits for
    a first byte, `options` the load options it names."""

    at: float
    model: str
    prompt: int
    output: int
    caller: str = ""
    options: Options = ()
    keep_alive: float | None = None
    embedding: bool = False
    patience: float = inf
    outside: str | None = None
    """The node it goes to past the router, where it does."""


class Outage(msgspec.Struct, frozen=True):
    """A node is away from `start` to `end`, in seconds."""

    node: str
    start: float
    end: float


class Result:
    """What became of one request. Times are virtual seconds, None for what never came."""

    __slots__ = ("arrival", "attempts", "ended", "endpoint", "first", "outcome", "predicted")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.first: float | None = None
        self.ended: float | None = None
        self.endpoint: str | None = None
        self.outcome = "under way"
        self.predicted: float | None = None
        self.attempts = 0

    @property
    def delay(self) -> float | None:
        """Time to first token."""
        return None if self.first is None else self.first - self.arrival.at


class RunningRequest:
    """A request under way; without a lease it has come past the router."""

    __slots__ = ("features", "job", "lease", "machine", "result", "ticket")

    def __init__(self, result: Result, features: Features) -> None:
        self.result = result
        self.features = features
        self.ticket: Ticket | None = None
        self.lease: Lease | None = None
        self.job: Job | None = None
        self.machine: RunningMachine | None = None


class RunningMachine:
    """A machine at work."""

    def __init__(self, shape: Machine, position: int) -> None:
        self.shape = shape
        self.node = Node(shape.limits)
        self.loads = 0
        self.up = True
        self.jobs: dict[int, RunningRequest | ModelLoad] = {}
        self.wake_at = inf
        self.specs = {canonical(each.name): each for each in shape.models}
        self.models = {
            canonical(each.name): Model(each.name, each.digest, each.size, embedding=each.embedding)
            for each in shape.models
        }
        self.speeds = {name: (prompt, output) for name, prompt, output in shape.rates}
        self.view = EndpointView(
            spec=shape.spec,
            position=position,
            profile=PROFILES["ollama"],
            health=Health.HEALTHY,
            models=self.models,
            models_at=0.0,
            resident_at=0.0,
        )

    def speed(self, model: ModelSpec) -> tuple[float, float]:
        """Prompt and output tokens a second, all in video memory."""
        known = self.speeds.get(canonical(model.name))
        if known is not None:
            return known
        return self.shape.prefill / model.size, self.shape.decode / model.size
