"""Run a policy on a workload with a seed, and compute the figures."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.routing.baselines import BY_NAME
from benchmarks.routing.workloads import WORKLOADS, Scenario
from olla.admission.dispatcher import Dispatcher
from olla.routing.decision import RoutingOptions
from olla.simulation.fleet import FleetRun
from olla.simulation.machine import Arrival, Machine, Result

__all__ = ["BOUND", "Job", "Outcome", "run"]

BOUND = "bound"
"""The lower bound: each request alone on the fastest node that has its model, already loaded."""
GOOD = 30.0
"""Seconds within which a first token counts as good."""


class Job(msgspec.Struct, frozen=True):
    """A policy, workload and seed to run."""

    workload: str
    policy: str
    seed: int
    traces: str | None = None
    limit: int = 1_000_000

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        parts = [
            "python -m benchmarks.routing",
            f"--workload {self.workload}",
            f"--policy '{self.policy}'",
            f"--seed {self.seed}",
            f"--limit {self.limit}",
        ]
        return " ".join([*parts, f"--traces {self.traces}"] if self.traces else parts)


class Outcome(msgspec.Struct):
    """The figures of a run. Times are seconds to the first token; `whole` is the time to the last.

    `loads` is loads per request. `good` counts requests per second whose first token was in time,
    and `good_share` their share of all. `lost` counts requests without a complete response. `error`
    is the mean of predicted minus observed delay, and `cpu` the CPU time per request.
    """

    job: Job
    requests: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    whole: float = 0.0
    loads: float = 0.0
    good: float = 0.0
    good_share: float = 0.0
    lost: int = 0
    worst: float = 0.0
    error: float | None = None
    cpu: float = 0.0


def run(job: Job) -> Outcome:
    """Run a job."""
    folder = Path(job.traces) if job.traces else None
    scenario = WORKLOADS[job.workload].make(job.seed, folder, job.limit)
    if job.policy == BOUND:
        return _bound(job, scenario)
    fleet = FleetRun(
        scenario.machines,
        scenario.arrivals,
        Dispatcher(BY_NAME[job.policy], RoutingOptions(), scenario.limits),
        probe_interval=scenario.probe_interval,
        outages=scenario.outages,
    )
    start = time.process_time()
    fleet.run()
    cpu = time.process_time() - start
    counted = [each for each in fleet.results if _counts(scenario, each.arrival)]
    outcome = _measured(job, counted, fleet.now)
    outcome.loads = fleet.loads / len(fleet.results)
    outcome.cpu = cpu / len(fleet.results)
    return outcome


def _counts(scenario: Scenario, arrival: Arrival) -> bool:
    if scenario.count_callers and arrival.caller not in scenario.count_callers:
        return False
    return arrival.at >= scenario.count_from


def _measured(job: Job, results: Sequence[Result], end: float) -> Outcome:
    delays = sorted(each.delay for each in results if each.delay is not None)
    whole = [
        each.ended - each.arrival.at
        for each in results
        if each.outcome == "done" and each.ended is not None
    ]
    good = sum(delay <= GOOD for delay in delays)
    errors = [
        each.predicted - each.delay
        for each in results
        if each.predicted is not None and each.delay is not None
    ]
    outcome = Outcome(job, len(results))
    _fill(outcome, delays)
    outcome.whole = _mean(whole)
    outcome.good = good / max(end, 1e-9)
    outcome.good_share = good / max(1, len(results))
    outcome.lost = sum(each.outcome != "done" for each in results)
    outcome.error = _mean(errors) if errors else None
    return outcome


def _bound(job: Job, scenario: Scenario) -> Outcome:
    """Compute the bound: nothing is queued or loaded, only prefill on the fastest node with the
    model."""
    fastest: dict[str, float] = {}
    decode: dict[str, float] = {}
    for name, machine, size in _models(scenario.machines):
        fastest[name] = max(fastest.get(name, 0.0), machine.prefill / size)
        decode[name] = max(decode.get(name, 0.0), machine.decode / size)
    delays, whole = [], []
    for each in scenario.arrivals:
        if not _counts(scenario, each):
            continue
        delays.append(each.prompt / fastest[each.model])
        whole.append(delays[-1] + each.output / decode[each.model])
    outcome = Outcome(job, len(delays))
    _fill(outcome, sorted(delays))
    outcome.whole = _mean(whole)
    span = max(scenario.arrivals[-1].at, 1e-9)
    outcome.good, outcome.good_share = len(delays) / span, 1.0
    return outcome


def _models(machines: Sequence[Machine]) -> list[tuple[str, Machine, int]]:
    return [(model.name, each, model.size) for each in machines for model in each.models]


def _fill(outcome: Outcome, delays: list[float]) -> None:
    """Compute the figures of a sorted list."""
    if not delays:
        return
    outcome.mean = _mean(delays)
    outcome.p50, outcome.p95, outcome.p99 = (
        delays[min(len(delays) - 1, int(len(delays) * share))] for share in (0.5, 0.95, 0.99)
    )
    outcome.worst = delays[-1]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
