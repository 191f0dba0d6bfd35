"""A fleet in discrete events: every request ends, nothing leaks, and a run repeats exactly."""

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olla.admission.dispatcher import Dispatcher
from olla.admission.rejections import QueueLimits
from olla.fleet.endpoint import EndpointSpec
from olla.routing.decision import RoutingOptions
from olla.routing.policies import POLICIES
from olla.routing.policy import Policy
from olla.simulation.events import NodeLimits
from olla.simulation.fleet import FleetRun
from olla.simulation.machine import Arrival, Machine, Outage
from olla.simulation.model_catalogue import ModelSpec

GB = 10**9
MODELS = tuple(
    ModelSpec(f"m{number}:latest", size * GB, digest=f"d{number}", context=8192)
    for number, size in enumerate((4, 8, 20, 40))
)
EMBEDDER = ModelSpec("embed:latest", GB // 2, digest="e", context=2048, embedding=True)
SED = POLICIES["shortest-expected-delay"]
BY_NAME = pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))


def machine(
    name: str,
    *,
    vram: int = 48,
    speed: float = 1.0,
    num_parallel: int | None = 1,
    slots: int = 1,
    models: tuple[ModelSpec, ...] = MODELS,
    bandwidth: float = 1e9,
) -> Machine:
    """A node; `num_parallel` is what the operator says, `slots` what is."""
    return Machine(
        EndpointSpec(name, name, 1, num_parallel=num_parallel),
        NodeLimits(vram=vram * GB, num_parallel=slots, load_bandwidth=bandwidth),
        prefill=speed * 1e13,
        decode=speed * 5e11,
        models=models,
    )


def traffic(seed: int, count: int, per_second: float, **more: object) -> list[Arrival]:
    """Random requests for random models."""
    rng, at, found = Random(seed), 0.0, []
    for _ in range(count):
        at += rng.expovariate(per_second)
        model = rng.choices(MODELS, [8, 4, 2, 1])[0].name
        found.append(Arrival(at, model, rng.randint(10, 2000), rng.randint(1, 200), **more))  # type: ignore[arg-type]
    return found


def run(
    machines: list[Machine],
    arrivals: Iterable[Arrival],
    *,
    policy: Policy = SED,
    limits: QueueLimits | None = None,
    options: RoutingOptions | None = None,
    outages: tuple[Outage, ...] = (),
    probe_interval: float = 5.0,
) -> FleetRun:
    """Let it all happen, and check that nothing is left."""
    fleet = FleetRun(
        machines,
        arrivals,
        Dispatcher(policy, options or RoutingOptions(), limits),
        probe_interval=probe_interval,
        outages=outages,
    )
    fleet.run()
    assert fleet.dispatcher.leases == fleet.dispatcher.waiting == 0
    assert fleet.dispatcher.twins.total() == 0
    assert all(each.outcome != "under way" for each in fleet.results)
    return fleet


@BY_NAME
def test_every_request_is_answered_whatever_the_policy(policy: Policy) -> None:
    """Its first token comes after it and before its last."""
    fleet = run([machine("a"), machine("b", speed=2.0)], traffic(1, 300, 0.5), policy=policy)
    assert {each.outcome for each in fleet.results} == {"done"}
    for each in fleet.results:
        assert each.first is not None
        assert each.ended is not None
        assert each.arrival.at <= each.first <= each.ended


@BY_NAME
def test_the_same_seed_gives_the_same_run(policy: Policy) -> None:
    """To the last bit."""
    machines = [machine("a"), machine("b", vram=24), machine("c", speed=3.0)]
    first, second = (run(machines, traffic(7, 200, 1.0), policy=policy) for _ in range(2))
    assert [each.first for each in first.results] == [each.first for each in second.results]
    assert first.loads == second.loads


def test_relabelled_endpoints_change_no_delay() -> None:
    """Names mean nothing."""
    runs = [run([machine(x), machine(y, speed=2.0)], traffic(3, 200, 1.0)) for x, y in ("ab", "zy")]
    assert [each.delay for each in runs[0].results] == [each.delay for each in runs[1].results]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    per_second=st.floats(0.1, 5.0),
    patience=st.sampled_from([1.0, 15.0, float("inf")]),
    died=st.floats(0.0, 100.0),
    away=st.floats(0.1, 100.0),
    slots=st.integers(1, 3),
    told=st.booleans(),
)
def test_nothing_is_lost_whatever_happens(
    seed: int,
    per_second: float,
    patience: float,
    died: float,
    away: float,
    slots: int,
    told: bool,
) -> None:
    """Impatient clients, a node that dies and returns, slots nobody told: each request ends in
    one way, each lease is released once (twice would raise), and the counts end at zero."""
    machines = [
        machine("a", slots=slots, num_parallel=slots if told else None),
        machine("b", slots=slots, num_parallel=slots if told else None, vram=24),
    ]
    fleet = run(
        machines,
        traffic(seed, 80, per_second, patience=patience),
        outages=(Outage("a", died, died + away),),
        limits=QueueLimits(max_queue=30, timeout=60.0),
    )
    known = {
        "done", "left", "broken", "queue_full", "queue_timeout", "model_unavailable",
        "connect_refused", "reset",
    }  # fmt: skip
    assert {each.outcome for each in fleet.results} <= known


def test_a_cold_model_is_loaded_once_for_many() -> None:
    """A second load begins only where the queue makes it worth while: not for short answers."""
    known = [Arrival(40.0 * (n > 0) + n, MODELS[2].name, 50, 2, keep_alive=50.0) for n in range(60)]
    burst = [Arrival(200 + 0.05 * n, MODELS[2].name, 50, 2) for n in range(4)]
    fleet = run([machine("a"), machine("b")], [*known, *burst])
    assert fleet.loads == 2  # one for those that came first, one for the burst


def test_a_long_queue_is_worth_a_second_copy() -> None:
    """When what waits takes longer than loading it elsewhere."""
    burst = [Arrival(0.01 * n, MODELS[0].name, 2000, 200) for n in range(60)]
    fleet = run([machine("a", slots=1), machine("b", slots=1)], burst)
    assert fleet.loads == 2
    assert {each.endpoint for each in fleet.results} == {"a", "b"}


def test_impatient_clients_cannot_keep_a_model_cold() -> None:
    """They give up after 15 s, the load takes 40: the second attempt finds it warm."""
    attempts = [Arrival(60.0 * n, MODELS[3].name, 50, 10, patience=15.0) for n in range(5)]
    fleet = run([machine("a", vram=80)], attempts)
    assert [each.outcome for each in fleet.results] == ["left", "done", "done", "done", "done"]
    assert fleet.loads == 1


def test_a_caller_that_floods_delays_the_others_little() -> None:
    """It waits for itself: twice as much as the node can do piles up in three minutes."""
    seconds = 180.0
    rng = Random(5)

    def steady(caller: str, per_second: float, until: float) -> list[Arrival]:
        at, found = 0.0, []
        while (at := at + rng.expovariate(per_second)) < until:
            found.append(Arrival(at, MODELS[0].name, 300, 60, caller))
        return found

    alone = steady("light", 0.3, seconds)
    machines = [machine("a", slots=2, num_parallel=2, models=MODELS[:1])]
    flood = sorted([*alone, *steady("flood", 6.0, seconds)], key=lambda each: each.at)
    calm, pressed = run(machines, alone), run(machines, flood)

    def late(fleet: FleetRun) -> float:
        delays = sorted(
            each.delay for each in fleet.results
            if each.arrival.caller == "light" and each.delay is not None
        )  # fmt: skip
        return delays[int(len(delays) * 0.95)]

    # What is being worked on is not interrupted: a light request waits for one service at most.
    service = 300 / 2500 + 60 / 125
    assert late(pressed) <= late(calm) + service


def test_clients_with_different_contexts_settle_on_different_nodes() -> None:
    """Instead of reloading one model for ever."""
    rng, at, mixed = Random(2), 0.0, []
    for _ in range(600):
        at += rng.expovariate(0.5)
        options = (("num_ctx", float(rng.choice([4096, 8192]))),)
        mixed.append(Arrival(at, MODELS[0].name, 200, 50, options=options))
    fleet = run([machine("a"), machine("b")], mixed)
    assert fleet.loads <= 2 + 3


def test_embeddings_do_not_evict_a_chat_model_while_there_is_another_place() -> None:
    """They go where nothing has to leave."""
    both = (MODELS[3], EMBEDDER)
    machines = [machine("chat", vram=56, models=both), machine("other", vram=16, models=both)]
    chat = [Arrival(5.0 * n, MODELS[3].name, 100, 20) for n in range(60)]
    vectors = [Arrival(100 + 0.5 * n, EMBEDDER.name, 100, 0, embedding=True) for n in range(300)]
    fleet = run(machines, sorted([*chat, *vectors], key=lambda each: each.at))
    assert fleet.nodes["chat"].unloads == 0


def test_slots_nobody_told_are_found() -> None:
    """Unknown `num_parallel` costs little against known."""
    delays = []
    for told in (4, None):
        fleet = run(
            [machine("a", slots=4, num_parallel=told, models=MODELS[:1])],
            [Arrival(0.5 * n, MODELS[0].name, 500, 150) for n in range(2000)],
        )
        found = [each.delay for each in fleet.results if each.delay is not None]
        delays.append(sum(found) / len(found))
    assert delays[1] <= delays[0] * 1.15


def test_a_wait_that_is_too_long_is_refused() -> None:
    """Waiting is bounded, whatever comes."""
    fleet = run(
        [machine("a", models=MODELS[:1])],
        [Arrival(0.01 * n, MODELS[0].name, 500, 150) for n in range(500)],
        limits=QueueLimits(timeout=20.0),
    )
    waits = [each.delay for each in fleet.results if each.delay is not None]
    assert max(waits) <= 21.0
    assert {each.outcome for each in fleet.results} <= {"done", "queue_full", "queue_timeout"}


def test_outside_traffic_is_put_up_with() -> None:
    """Somebody else uses the node: probes tell, and nothing breaks."""
    outside = [Arrival(3.0 * n, MODELS[n % 3].name, 500, 100, outside="a") for n in range(100)]
    ours = traffic(4, 200, 0.5)
    fleet = run([machine("a"), machine("b")], sorted([*ours, *outside], key=lambda each: each.at))
    assert {each.outcome for each in fleet.results} == {"done"}
