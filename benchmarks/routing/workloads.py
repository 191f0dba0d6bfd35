"""The workloads: each is a function from a seed to the fleet, arrivals and events of a run."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec

from benchmarks.routing import fleets, traces
from olla.admission.rejections import QueueLimits
from olla.simulation.machine import Arrival, Machine, Outage
from olla.simulation.model_catalogue import ModelSpec

__all__ = ["WORKLOADS", "Scenario", "Workload"]

_ZIPF = 0.9
_SETTLED = 600.0
"""Seconds after which the estimates of a cold fleet are taken to be learned."""


class Scenario(msgspec.Struct):
    """A fleet, its arrivals and its outages. `quick` runs keep the first part."""

    machines: list[Machine]
    arrivals: list[Arrival]
    probe_interval: float = 5.0
    outages: tuple[Outage, ...] = ()
    limits: QueueLimits = QueueLimits()
    count_callers: tuple[str, ...] = ()
    """Only these callers' requests are counted; if empty, all are."""
    count_from: float = 0.0
    """Only requests that arrive after this time (seconds) are counted."""


class Workload(msgspec.Struct, frozen=True):
    """A name, a description, and a function from a seed, the folder with the traces and the maximum
    number of requests."""

    name: str
    about: str
    make: Callable[[int, Path | None, int], Scenario]


def assign(
    requests: list[traces.Request],
    seed: int,
    limit: int,
    models: tuple[ModelSpec, ...] = fleets.MODELS,
) -> list[Arrival]:
    """Assign models to requests by Zipf's law; returns at most `limit` consecutive requests."""
    rng = Random(seed)
    first = rng.randrange(max(1, len(requests) - limit)) if len(requests) > limit else 0
    part = requests[first : first + limit]
    weights = [1 / (rank + 1) ** _ZIPF for rank in range(len(models))]
    names = [each.name for each in rng.choices(models, weights, k=len(part))]
    start = part[0].at
    return [
        Arrival(each.at - start, name, each.prompt, each.output)
        for each, name in zip(part, names, strict=True)
    ]


def conversation(
    seed: int, folder: Path | None, limit: int, per_second: float = 1.5
) -> list[Arrival]:
    """Return conversations at `per_second` requests per second."""
    return assign(traces.load(traces.CONVERSATION, folder, seed, per_second), seed, limit)


def _conversations(per_second: float) -> Callable[[int, Path | None, int], Scenario]:
    def make(seed: int, folder: Path | None, limit: int) -> Scenario:
        return Scenario(fleets.unequal(), conversation(seed, folder, limit, per_second))

    return make


def _code(seed: int, folder: Path | None, limit: int) -> Scenario:
    arrivals = assign(traces.load(traces.CODE, folder, seed, 2.5), seed, limit)
    return Scenario(fleets.unequal(), arrivals)


def _part(limit: int) -> int:
    """Limit the requests of workloads that are variations."""
    return min(limit, 5000)


def _equal(seed: int, folder: Path | None, limit: int) -> Scenario:
    return Scenario(fleets.equal(), conversation(seed, folder, _part(limit), 2.0))


def _flash(seed: int, folder: Path | None, limit: int) -> Scenario:
    crowd_on = fleets.MODELS[6].name
    calm = [each for each in conversation(seed, folder, _part(limit)) if each.model != crowd_on]
    middle = calm[len(calm) // 2].at
    rng = Random(seed)
    crowd = [
        Arrival(middle + rng.uniform(0, 20), crowd_on, rng.randint(50, 1500), rng.randint(20, 300))
        for _ in range(200)
    ]
    return Scenario(fleets.unequal(), _sorted([*calm, *crowd]))


def _overload(seed: int, folder: Path | None, limit: int) -> Scenario:
    # From 16 requests per second on, this fleet serves about 15.5.
    arrivals = conversation(seed, folder, _part(limit), 18.6)
    return Scenario(fleets.unequal(), arrivals, limits=QueueLimits(timeout=30.0))


def _outage(seed: int, folder: Path | None, limit: int) -> Scenario:
    arrivals = conversation(seed, folder, _part(limit))
    end = arrivals[-1].at
    return Scenario(fleets.unequal(), arrivals, outages=(Outage("node-0", end / 3, 2 * end / 3),))


def _embeddings(seed: int, folder: Path | None, limit: int) -> Scenario:
    chat = conversation(seed, folder, _part(limit) // 2)
    rng = Random(seed)
    vectors = [
        Arrival(
            rng.uniform(0, chat[-1].at), fleets.EMBEDDER.name, rng.randint(50, 500), 1,
            embedding=True,
        )
        for _ in chat
    ]  # fmt: skip
    return Scenario(fleets.unequal(more=(fleets.EMBEDDER,)), _sorted([*chat, *vectors]))


def _contexts(seed: int, folder: Path | None, limit: int) -> Scenario:
    rng = Random(seed)
    arrivals = [
        msgspec.structs.replace(
            each,
            model=fleets.MODELS[rng.choice((0, 0, 1, 2, 5))].name,
            options=(("num_ctx", float(rng.choice((4096, 8192)))),),
        )
        for each in conversation(seed, folder, _part(limit))
    ]
    return Scenario(fleets.unequal(), arrivals)


def _impatient(seed: int, folder: Path | None, limit: int) -> Scenario:
    """Every client gives up after 15 s; the largest model takes longer than that to load."""
    arrivals = [
        msgspec.structs.replace(each, patience=15.0)
        for each in conversation(seed, folder, _part(limit))
    ]
    return Scenario(fleets.unequal(), arrivals)


def _wrong(seed: int, folder: Path | None, limit: int) -> Scenario:
    return Scenario(fleets.unequal(misjudged=3.0), conversation(seed, folder, _part(limit)))


def _stale(seed: int, folder: Path | None, limit: int) -> Scenario:
    arrivals = conversation(seed, folder, _part(limit))
    return Scenario(fleets.unequal(), arrivals, probe_interval=30.0)


def _plain(seed: int, folder: Path | None, limit: int) -> Scenario:
    """The control for the variations: the same requests, unchanged."""
    return Scenario(fleets.unequal(), conversation(seed, folder, _part(limit)))


def _unconfigured(seed: int, folder: Path | None, limit: int) -> Scenario:
    return Scenario(fleets.unequal(configured=False), conversation(seed, folder, _part(limit)))


def _callers(flood: float, model: str | None = None) -> Callable[[int, Path | None, int], Scenario]:
    def make(seed: int, folder: Path | None, limit: int) -> Scenario:
        rng = Random(seed)
        names = [f"caller-{number}" for number in range(10)]
        calm = [
            msgspec.structs.replace(each, caller=rng.choice(names))
            for each in conversation(seed, folder, _part(limit), 2.0)
        ]
        # The flood and the counting begin once the fleet has settled.
        end = calm[-1].at
        begins = min(_SETTLED, end / 2)
        extra: list[Arrival] = []
        if flood:
            more = conversation(seed + 1000, folder, int(len(calm) * flood), 2.0 * flood)
            extra = [
                msgspec.structs.replace(
                    each, caller="flood", at=each.at + begins, model=model or each.model
                )
                for each in more
                if each.at + begins < end
            ]
        return Scenario(
            fleets.unequal(),
            _sorted([*calm, *extra]),
            count_callers=tuple(names),
            count_from=begins,
        )

    return make


def _huge(seed: int, folder: Path | None, limit: int) -> Scenario:
    requests = traces.load(traces.CONVERSATION, folder, seed, 30.0)
    machines = fleets.huge()
    available = {each.name for one in machines for each in one.models}
    models = tuple(each for each in fleets.huge_models() if each.name in available)
    return Scenario(machines, assign(requests, seed, _part(limit), models))


def _sorted(arrivals: list[Arrival]) -> list[Arrival]:
    return sorted(arrivals, key=lambda each: each.at)


_ALL = (
    Workload("conversations-1.5", "conversations at 1.5 requests/s", _conversations(1.5)),
    Workload("conversations-3", "conversations at 3 requests/s", _conversations(3.0)),
    Workload("code-2.5", "code completion at 2.5 requests/s, in bursts", _code),
    Workload("plain", "5,000 conversations at 1.5 requests/s", _plain),
    Workload("equal-nodes", "eight equal nodes, 2 requests/s", _equal),
    Workload("flash-crowd", "200 requests in 20 s for a cold model", _flash),
    Workload("overload", "20 % more requests than the fleet can serve", _overload),
    Workload("outage", "the fastest node is down for a third of the time", _outage),
    Workload("embeddings", "half of the requests are embeddings", _embeddings),
    Workload("contexts", "clients with two values of num_ctx", _contexts),
    Workload("impatient", "clients that give up after 15 s", _impatient),
    Workload("wrong-estimates", "configured disk speeds are wrong by a factor of three", _wrong),
    Workload("stale-probes", "nodes are probed only every 30 s", _stale),
    Workload("unknown-slots", "num_parallel is not configured", _unconfigured),
    Workload("callers", "ten callers at 2 requests/s together", _callers(0.0)),
    Workload(
        "flood",
        "the same, and one more caller that requests ten times its share of one model",
        _callers(1.0, fleets.MODELS[0].name),
    ),
    Workload(
        "flood-all",
        "the same, and one more caller that requests ten times its share of all models",
        _callers(1.0),
    ),
    Workload("huge", "200 nodes, 300 models, 30 requests/s", _huge),
)
WORKLOADS: dict[str, Workload] = {each.name: each for each in _ALL}
