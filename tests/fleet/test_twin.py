"""The twin foresees what a node does, and learns from what it is told.

The node here is the simulated one, which shares no code with the twin.
"""

from math import inf

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olla.fleet.endpoint import EndpointSpec
from olla.fleet.estimates import EndpointRates, FleetRates
from olla.fleet.health import Health
from olla.fleet.instance import InFlightRequest, ModelInstance
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Model, ResidentModel, resident_by_name
from olla.fleet.twin import Twin
from olla.simulation.events import Job, NodeLimits, Started
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.node import Node

GB = 10**9
MODELS = [
    ModelSpec(f"m{number}:latest", size * GB, digest=f"d{number}", context=4096)
    for number, size in enumerate((2, 4, 5, 8, 12))
]
BANDWIDTH = 1e9


class Pair:
    """A node and its twin, driven side by side."""

    def __init__(self, vram: int = 24 * GB, slots: int = 1, told: bool = True) -> None:
        self.node = Node(
            NodeLimits(
                vram=vram,
                num_parallel=slots,
                load_bandwidth=BANDWIDTH,
                warm_bandwidth=BANDWIDTH,
                keep_alive=300.0,
            )
        )
        self.models = {
            canonical(each.name): Model(each.name, each.digest, each.size) for each in MODELS
        }
        spec = EndpointSpec(
            "a",
            "a",
            1,
            num_parallel=slots,
            vram=vram if told else None,
            load_bandwidth=BANDWIDTH if told else None,
        )
        self.view = EndpointView(
            spec=spec,
            position=0,
            profile=PROFILES["ollama"],
            health=Health.HEALTHY,
            models=self.models,
        )
        self.twin = Twin(self.view, EndpointRates(FleetRates(), spec.load_bandwidth))
        self.twin.take_models(self.models)
        for each in MODELS:
            instance = self.twin.names[canonical(each.name)]
            context = 4096 * slots / 50_000  # what the node adds for context, learned otherwise
            instance.footprints[()] = each.size * (1 + context)
        self.now = 0.0
        self.jobs = 0

    def instance(self, number: int) -> ModelInstance:
        """The line of a model."""
        return self.twin.instances[f"d{number}"]

    def send(
        self, number: int, keep_alive: float | None = None
    ) -> tuple[InFlightRequest, Job, bool]:
        """A request through the router; the last says whether it has started."""
        self.jobs += 1
        instance = self.instance(number)
        flight = InFlightRequest(instance, self.now, 1.0, (), keep_alive)
        self.twin.sent(flight, self.now)
        job = Job(self.jobs, MODELS[number], (), keep_alive)
        outcomes = self.node.submit(job, self.now)
        started = any(isinstance(each, Started) and each.job is job for each in outcomes)
        return flight, job, started

    def finish(self, flight: InFlightRequest, job: Job) -> None:
        """It is done."""
        self.twin.began(flight, self.now)
        self.node.finish(job, self.now)
        self.twin.ended(flight, self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass on both."""
        self.now += seconds
        self.node.advance(self.now)
        self.twin.pass_time(self.now)

    def shown(self) -> set[str]:
        """What `/api/ps` tells."""
        return {each.model.digest for each in self.node.resident(self.now)}

    def believed(self) -> set[str]:
        """What the twin believes."""
        return set(self.twin.residents)

    def probe(self) -> None:
        """The twin is told what is in memory."""
        told = [
            ResidentModel(
                each.name,
                each.model.digest,
                each.size,
                each.size_vram,
                each.context_length,
                each.expires_at,
            )
            for each in self.node.resident(self.now)
        ]
        view = msgspec.structs.replace(
            self.view, resident=resident_by_name(told, self.models), resident_wall=self.now
        )
        self.twin.saw(view, self.now, self.now)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(0.1, 400.0), st.sampled_from([None, 5.0, inf])),
        max_size=25,
    ),
    st.sampled_from([10, 16, 24, 48]),
)
def test_the_twin_knows_what_is_in_memory_after_every_dispatch(
    requests: list[tuple[int, float, float | None]], vram: int
) -> None:
    """Loads, evictions in the node's order, expiry: as `/api/ps` would tell, without asking."""
    pair = Pair(vram=vram * GB)
    for number, pause, keep_alive in requests:
        flight, job, started = pair.send(number, keep_alive)
        assert pair.believed() == pair.shown()
        if not started:
            pair.pass_time(MODELS[number].size / BANDWIDTH + 1e-6)
        pair.finish(flight, job)
        assert pair.believed() == pair.shown()
        pair.pass_time(pause)
        assert pair.believed() == pair.shown()


def test_a_load_under_way_is_known_though_no_probe_shows_it() -> None:
    """`/api/ps` is blind for it, and telling so changes nothing."""
    pair = Pair()
    pair.send(2)
    pair.pass_time(2.0)
    pair.probe()
    assert pair.shown() == set()
    assert pair.twin.loading is not None
    assert pair.twin.loading.instance is pair.instance(2)
    assert pair.twin.loading.left(pair.now) == pytest.approx(3.0)


def test_loads_wait_for_each_other() -> None:
    """One at a time per node."""
    pair = Pair(vram=48 * GB)
    pair.send(0)
    pair.send(1)
    assert len(pair.twin.pending) == 1
    pair.pass_time(2.1)
    assert pair.believed() == {"d0"} == pair.shown()
    assert pair.twin.loading is not None
    assert pair.twin.loading.instance is pair.instance(1)
    pair.pass_time(4.1)
    assert pair.believed() == {"d0", "d1"} == pair.shown()


def test_a_load_whose_only_client_left_is_given_up() -> None:
    """As the node gives it up; one of olla's own goes on."""
    pair = Pair()
    flight, _, _ = pair.send(0)
    pair.twin.ended(flight, pair.now)
    assert pair.twin.loading is None
    loading = pair.twin.start_load(pair.instance(1), (), pair.now)
    flight = InFlightRequest(pair.instance(1), pair.now, 1.0)
    pair.twin.sent(flight, pair.now)
    pair.twin.ended(flight, pair.now)
    assert pair.twin.loading is loading


def test_a_probe_corrects_what_others_did() -> None:
    """What somebody else loaded is there, what somebody else unloaded is gone."""
    pair = Pair()
    pair.node.submit(Job(99, MODELS[1]), 0.0)
    pair.pass_time(5.0)
    pair.probe()
    assert pair.believed() == {"d1"}
    assert pair.instance(1).options is None
    pair.node.finish(Job(99, MODELS[1]), pair.now)
    pair.node.unload(MODELS[1], pair.now)
    pair.pass_time(1.0)
    pair.probe()
    assert pair.believed() == set()


def test_an_answer_to_an_old_question_undoes_nothing() -> None:
    """What olla did after the probe asked outweighs what it tells."""
    pair = Pair()
    flight, job, _ = pair.send(0)
    asked_at = pair.now
    pair.pass_time(2.1)
    pair.finish(flight, job)
    pair.twin.saw(pair.view, asked_at, pair.now)
    assert pair.believed() == {"d0"}


def test_the_nodes_own_word_on_expiry_counts() -> None:
    """A model others use is taken to stay as long as the node says."""
    pair = Pair()
    pair.node.submit(Job(99, MODELS[0], (), 50.0), 0.0)
    pair.pass_time(3.0)
    pair.node.finish(Job(99, MODELS[0]), pair.now)
    pair.probe()
    pair.pass_time(49.0)
    assert pair.believed() == {"d0"}
    pair.pass_time(2.0)
    assert pair.believed() == set() == pair.shown()


def test_a_busy_victim_is_named_last_and_an_idle_one_goes_first() -> None:
    """Then shortest keep-alive, then name."""
    pair = Pair(vram=16 * GB)
    for number, keep_alive in ((0, None), (1, 10.0)):
        flight, job, _ = pair.send(number, keep_alive)
        pair.pass_time(5.0)
        pair.finish(flight, job)
    assert pair.twin.victims(pair.instance(3), ()) == [pair.instance(1)]
    pair.send(1)
    assert pair.twin.victims(pair.instance(3), ())[0] is pair.instance(0)


def test_memory_that_was_not_told_is_learned() -> None:
    """From what spills into main memory, and from what is seen together."""
    pair = Pair(vram=24 * GB, told=False)
    assert pair.twin.capacity < 24 * GB
    for number in (2, 3):
        pair.node.submit(Job(90 + number, MODELS[number]), pair.now)
        pair.pass_time(20.0)
    pair.probe()
    assert pair.twin.capacity >= 13 * GB
