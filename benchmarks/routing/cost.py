"""Measure the cost of a routing decision: CPU microseconds of `decide`, the best of several rounds.

`idle`: every slot is free. `busy`: slots are taken and requests are queued.
"""

import time
from random import Random

import msgspec

from benchmarks.routing import fleets
from olla.admission.dispatcher import Dispatcher
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import EndpointView, ResidentModel, Snapshot, resident_by_name
from olla.routing.decision import RoutingOptions, decide
from olla.routing.features import Features
from olla.routing.policies import DEFAULT, POLICIES
from olla.simulation.machine import Machine, RunningMachine
from olla.simulation.model_catalogue import ModelSpec

_ROUNDS = 7
_REQUESTS = 1000
_RESIDENT = 3


def _views(machines: list[Machine]) -> list[EndpointView]:
    """Return the machines as probes would report them, with some models resident."""
    views = []
    for position, machine in enumerate(machines):
        view = RunningMachine(machine, position).view
        models = Random(position).sample(machine.models, min(_RESIDENT, len(machine.models)))
        loaded = [
            ResidentModel(each.name, each.digest, each.size, each.size, 8192) for each in models
        ]
        resident = resident_by_name(loaded, view.models)
        views.append(msgspec.structs.replace(view, resident=resident, resident_at=0.0))
    return views


def _measure(name: str, machines: list[Machine], models: tuple[ModelSpec, ...], busy: int) -> None:
    dispatcher = Dispatcher(POLICIES[DEFAULT], RoutingOptions())
    snapshot = Snapshot.of(_views(machines))
    dispatcher.changed(snapshot, 0.0)
    twins = dispatcher.twins
    names = [canonical(each.name) for each in models if twins.instances(canonical(each.name))]
    rng = Random(1)
    requests = [
        Features((rng.choice(names),), "ollama", ticket=ticket, prompt_tokens=1000.0)
        for ticket in range(_REQUESTS)
    ]
    for each in requests:
        twins.instances(each.models[0])[0].habits.arrivals.add(1.0)

    def best() -> float:
        rounds = []
        for _ in range(_ROUNDS):
            start = time.process_time()
            for each in requests:
                decide(each, twins, dispatcher.policy, dispatcher.options, "", 2.0)
            rounds.append((time.process_time() - start) / len(requests) * 1e6)
        return min(rounds)

    idle = best()
    for each in requests[:busy]:
        dispatcher.ask(each, snapshot, "", 2.0)
    candidates = sum(len(twins.instances(each)) for each in names) / len(names)
    print(
        f"{name:36}{candidates:6.1f} candidates  idle {idle:6.1f} µs  busy {best():6.1f} µs"
        f"  ({dispatcher.waiting} queued)"
    )


def main() -> None:
    """Measure a small fleet and a large one."""
    _measure("8 endpoints, 12 models", fleets.unequal(), fleets.MODELS, 40)
    large = fleets.huge(500, 300, 30)
    _measure("500 endpoints, 300 models", large, fleets.huge_models(300), 900)


if __name__ == "__main__":
    main()
