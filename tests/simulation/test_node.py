"""The scheduler of a simulated node, in virtual time: Ollama's scheduling, rule by rule."""

import itertools
import math

import pytest

from olla.simulation.events import (
    Job,
    JobRefused,
    LoadAborted,
    LoadBegan,
    ModelLoaded,
    NodeLimits,
    Outcome,
    Started,
    Unloaded,
)
from olla.simulation.model_catalogue import ModelSpec
from olla.simulation.node import Node

GB = 1_000_000_000


def model(name: str, gigabytes: float = 2, **more: object) -> ModelSpec:
    """A model; one gigabyte loads in a second."""
    return ModelSpec(name, int(gigabytes * GB), context=4096, digest=f"of {name}", **more)  # type: ignore[arg-type]


A, B, C, D = (model(name) for name in "abcd")


class Script:
    """A node and its jobs, told as a story: who asks when, and what came of it."""

    def __init__(self, **limits: object) -> None:
        limits.setdefault("vram", 40 * GB)
        self.node = Node(NodeLimits(**limits))  # type: ignore[arg-type]
        self.ids = itertools.count(1)
        self.log: list[Outcome] = []

    def ask(self, spec: ModelSpec, now: float, **more: object) -> Job:
        job = Job(next(self.ids), spec, **more)  # type: ignore[arg-type]
        self.log += self.node.submit(job, now)
        return job

    def end(self, job: Job, now: float) -> None:
        self.log += self.node.finish(job, now)

    def leave(self, job: Job, now: float) -> None:
        self.log += self.node.leave(job, now)

    def until(self, now: float) -> None:
        self.log += self.node.advance(now)

    def warm(self, *specs: ModelSpec, at: float = 0.0, **more: object) -> float:
        """Have models loaded and idle; the time at which they are."""
        for spec in specs:
            job = self.ask(spec, at, **more)
            at = self.started(job).at if self.has_started(job) else self._ready(job, at)
            self.end(job, at)
        return at

    def _ready(self, job: Job, at: float) -> float:
        while not self.has_started(job):
            due = self.node.next_event()
            assert due is not None
            self.until(due)
        return self.started(job).at

    def started(self, job: Job) -> Started:
        return next(e for e in self.log if isinstance(e, Started) and e.job == job)

    def has_started(self, job: Job) -> bool:
        return any(isinstance(e, Started) and e.job == job for e in self.log)

    def times(self, kind: type) -> list[tuple[str, float]]:
        """Model and time of every outcome of a kind."""
        return [(e.model.name, e.at) for e in self.log if isinstance(e, kind)]

    def resident(self, now: float) -> list[str]:
        self.until(now)
        return sorted(each.name for each in self.node.resident(now))


def test_a_resident_model_starts_at_once() -> None:
    """A request for a loaded model takes a free slot in the same step."""
    story = Script()
    at = story.warm(A)
    job = story.ask(A, at + 1)
    assert story.started(job) == Started(job, at + 1, 0.0, 1.0)


def test_slots_are_first_come_first_served_without_bound() -> None:
    """With one slot, requests for a loaded model run one after the other and none is refused."""
    story = Script(max_queue=1)
    at = story.warm(A)
    jobs = [story.ask(A, at) for _ in range(600)]
    for number, job in enumerate(jobs):
        assert story.started(job).at == at + number
        assert not any(story.has_started(later) for later in jobs[number + 1 :][:3])
        story.end(job, at + number + 1)
    assert not [e for e in story.log if isinstance(e, JobRefused)]


def test_num_parallel_gives_that_many_slots() -> None:
    """`num_parallel` requests of one model run at once, the next waits."""
    story = Script(num_parallel=3)
    at = story.warm(A)
    jobs = [story.ask(A, at) for _ in range(4)]
    assert [story.has_started(job) for job in jobs] == [True, True, True, False]
    story.end(jobs[1], at + 1)
    assert story.started(jobs[3]).at == at + 1


def test_embedding_models_have_one_slot() -> None:
    """`num_parallel` does not hold for embedding models."""
    embedder = model("embedder", 0.3, embedding=True)
    story = Script(num_parallel=4)
    at = story.warm(embedder)
    jobs = [story.ask(embedder, at) for _ in range(2)]
    assert [story.has_started(job) for job in jobs] == [True, False]


def test_a_waiting_request_that_leaves_is_skipped() -> None:
    """Who leaves while it waits for a slot never gets one."""
    story = Script()
    at = story.warm(A)
    first, second, third = (story.ask(A, at) for _ in range(3))
    story.leave(second, at + 1)
    story.end(first, at + 2)
    assert not story.has_started(second)
    assert story.started(third).at == at + 2


def test_loads_run_one_at_a_time_in_order() -> None:
    """Loads follow each other, and each request's load time contains its wait in the queue."""
    story = Script()
    jobs = [story.ask(spec, 0) for spec in (A, B, C)]
    story.until(10)
    assert story.times(LoadBegan) == [("a", 0), ("b", 2), ("c", 4)]
    assert story.times(ModelLoaded) == [("a", 2), ("b", 4), ("c", 6)]
    assert [story.started(job).load_seconds for job in jobs] == [2, 4, 6]


def test_a_loaded_models_requests_overtake_the_load_queue() -> None:
    """Who needs no load does not wait for one."""
    story = Script()
    at = story.warm(A)
    story.ask(B, at)
    hot = story.ask(A, at + 0.5)
    assert story.started(hot).at == at + 0.5


def test_requests_for_the_model_being_loaded_wait_in_the_queue() -> None:
    """They start when it is there, and not before what stands in front of them."""
    story = Script(num_parallel=2)
    first, second = story.ask(A, 0), story.ask(A, 1)
    between = story.ask(B, 1)
    last = story.ask(A, 1)
    story.until(3)
    assert story.started(first).at == 2
    assert story.started(second).at == 2
    assert story.started(second).load_seconds == 1
    assert not story.has_started(last)
    story.end(first, 3)
    story.until(10)
    assert story.started(between).at == 4
    assert story.started(last).at == 4


def test_the_queue_for_loads_is_bounded() -> None:
    """One is worked on, `max_queue` wait, the next is refused; hot requests do not count."""
    story = Script(max_queue=2)
    at = story.warm(A)
    kept = [story.ask(spec, at) for spec in (B, C, D)]
    refused = story.ask(B, at)
    assert [e.job for e in story.log if isinstance(e, JobRefused)] == [refused]
    assert story.has_started(story.ask(A, at))
    story.until(at + 100)
    assert story.has_started(kept[0])
    assert story.node.refused == 1


def test_who_left_keeps_its_place_in_the_queue() -> None:
    """A queue full of requests that nobody waits for any more still refuses."""
    story = Script(max_queue=1)
    story.ask(A, 0)
    gone = story.ask(B, 0)
    story.leave(gone, 0.5)
    refused = story.ask(C, 1)
    assert isinstance(story.log[-1], JobRefused)
    assert story.log[-1].job == refused
    story.until(10)
    assert not story.has_started(gone)
    assert story.times(LoadBegan) == [("a", 0)]


def test_load_time_is_size_over_bandwidth() -> None:
    """A model of six gigabytes at two per second loads in three seconds."""
    story = Script(load_bandwidth=2e9)
    job = story.ask(model("six", 6), 0)
    story.until(3)
    assert story.started(job).at == 3


def test_a_model_unloaded_shortly_before_loads_faster() -> None:
    """The page cache still has the file; after `warm_seconds` it no longer has."""
    story = Script(warm_bandwidth=4e9, warm_seconds=100)
    at = story.warm(A)
    story.log += story.node.unload(A, at)
    assert story.node.load_seconds(A, at + 99) == 0.5
    assert story.node.load_seconds(A, at + 101) == 2


def test_a_load_ends_with_the_client_that_caused_it() -> None:
    """When that client leaves, the load is given up and the next waiter starts from nothing."""
    story = Script()
    first, second = story.ask(A, 0), story.ask(A, 0.5)
    story.leave(first, 1.5)
    assert story.times(LoadAborted) == [("a", 1.5)]
    story.until(3.4)
    assert story.resident(3.4) == []
    story.until(3.5)
    assert story.started(second).at == 3.5
    assert story.node.loads == 1
    assert story.node.loads_aborted == 1


def test_impatient_clients_keep_a_model_cold() -> None:
    """Clients that leave before the load ends never get it loaded, however many they are."""
    story = Script()
    for attempt in range(5):
        story.leave(story.ask(A, attempt * 1.5), attempt * 1.5 + 1.5)
    assert story.resident(100) == []
    assert story.node.loads == 0


def test_another_waiter_that_leaves_does_not_stop_the_load() -> None:
    """Only the request at whose turn it began carries the load."""
    story = Script()
    first, second = story.ask(A, 0), story.ask(A, 0.5)
    story.leave(second, 1)
    story.until(2)
    assert story.started(first).at == 2
    assert story.node.loads_aborted == 0


def test_a_loading_model_is_not_shown() -> None:
    """What is in memory is shown only once it is ready."""
    story = Script()
    story.ask(A, 0)
    assert story.resident(1.9) == []
    assert story.node.loading == "a"
    assert story.resident(2) == ["a"]
    assert story.node.loading is None


def test_at_most_max_loaded_models() -> None:
    """With room for more in memory, the fourth model still evicts one."""
    story = Script(max_loaded_models=3)
    at = story.warm(A, B, C)
    story.warm(D, at=at)
    assert len(story.resident(at + 2)) == 3
    assert "d" in story.resident(at + 2)


def test_a_model_needs_four_fifths_of_the_free_memory() -> None:
    """8.7 GB beside 2 GB fit into 13 GB free, but not into less than 10.9 GB."""
    big = model("big", 8)
    size = int(8 * GB * (1 + 4096 / 50_000))
    for free, kept in ((size / 0.8 + 1e6, True), (size / 0.8 - 1e6, False)):
        story = Script(vram=int(free + 2 * GB * (1 + 4096 / 50_000)))
        at = story.warm(A)
        story.warm(big, at=at)
        assert ("a" in story.resident(at + 8)) is kept


def test_what_does_not_fit_at_all_runs_partly_on_the_processor() -> None:
    """A lone model larger than the memory loads, with the rest of it outside."""
    story = Script(vram=4 * GB)
    job = story.ask(model("huge", 16), 0)
    story.until(100)
    shown = story.node.resident(100)[0]
    assert shown.size_vram == 4 * GB
    assert shown.size > 16 * GB
    assert story.started(job).gpu_share == pytest.approx(4 * GB / shown.size)


@pytest.mark.parametrize(
    ("keep_alives", "victim"),
    [
        ((300, 300, 300), "a"),
        ((300, 100, 200), "b"),
        ((math.inf, 300, 300), "b"),
        ((math.inf, math.inf, math.inf), "a"),
    ],
    ids=["by name", "shortest keep-alive", "for ever is last", "for ever is not never"],
)
def test_eviction_order_of_idle_models(keep_alives: tuple[float, ...], victim: str) -> None:
    """Shortest keep-alive first, then the name; for ever only means last."""
    story = Script(max_loaded_models=3)
    at = 0.0
    for spec, keep_alive in zip((C, B, A), reversed(keep_alives), strict=True):
        at = story.warm(spec, at=at, keep_alive=keep_alive)
    story.ask(D, at)
    assert story.times(Unloaded) == [(victim, at)]


def test_idle_models_go_before_busy_ones() -> None:
    """A busy model with the shortest keep-alive stays while another is idle."""
    story = Script(max_loaded_models=2)
    at = story.warm(A, keep_alive=10)
    at = story.warm(B, at=at, keep_alive=1000)
    story.ask(A, at)
    story.ask(C, at)
    assert story.times(Unloaded) == [("b", at)]


def test_a_busy_victim_drains_first_and_the_queue_waits() -> None:
    """Neither the cold request nor those behind it start before the victim has finished."""
    story = Script(max_loaded_models=1)
    at = story.warm(A)
    running = story.ask(A, at)
    cold, behind = story.ask(B, at + 1), story.ask(B, at + 1)
    story.until(at + 50)
    assert story.times(LoadBegan) == [("a", 0)]
    story.end(running, at + 50)
    story.until(at + 52)
    assert story.started(cold).at == at + 52
    story.end(cold, at + 53)
    assert story.started(behind).at == at + 53


def test_a_victim_still_serves_who_comes_for_it() -> None:
    """Hot requests without a keep-alive go on being served, and the queue waits for them too."""
    story = Script(max_loaded_models=1)
    at = story.warm(A)
    running = story.ask(A, at)
    cold = story.ask(B, at + 1)
    late = story.ask(A, at + 2)
    story.end(running, at + 3)
    assert story.started(late).at == at + 3
    story.end(late, at + 4)
    assert story.times(Unloaded) == [("a", at + 4)]
    story.until(at + 6)
    assert story.started(cold).at == at + 6


def test_a_victim_with_a_new_keep_alive_starves_the_queue() -> None:
    """A hot request that names a keep-alive keeps the victim that long, all cold ones wait."""
    story = Script(max_loaded_models=1)
    at = story.warm(A)
    running = story.ask(A, at)
    cold = story.ask(B, at + 1)
    rearming = story.ask(A, at + 2, keep_alive=60)
    story.end(running, at + 3)
    story.end(rearming, at + 4)
    story.until(at + 63)
    assert not story.has_started(cold)
    story.until(at + 66)
    assert story.times(Unloaded) == [("a", at + 64)]
    assert story.started(cold).at == at + 66


def test_other_load_options_reload_the_model() -> None:
    """A request with another num_ctx unloads the model and loads it again, for all."""
    story = Script()
    at = story.warm(A, options=(("num_ctx", 2048.0),))
    other = story.ask(A, at, options=(("num_ctx", 4096.0),))
    assert story.times(Unloaded) == [("a", at)]
    story.until(at + 5)
    assert story.has_started(other)
    assert story.node.resident(at + 5)[0].context_length == 4096
    assert story.node.loads == 2


def test_a_reload_waits_until_the_model_is_idle() -> None:
    """Who runs with the old options finishes first."""
    story = Script()
    at = story.warm(A)
    running = story.ask(A, at)
    other = story.ask(A, at + 1, options=(("num_ctx", 2048.0),))
    story.end(running, at + 10)
    story.until(at + 20)
    assert story.started(other).at == pytest.approx(at + 10.5)


def test_keep_alive_begins_when_the_last_request_ends() -> None:
    """A model expires its keep-alive after it went idle; while requests run, the timer stands."""
    story = Script(keep_alive=300)
    job = story.ask(A, 0)
    story.until(1000)
    assert story.resident(1000) == ["a"]
    story.end(job, 1000)
    assert story.node.next_event() == 1300
    assert story.resident(1299.9) == ["a"]
    assert story.resident(1300) == []


def test_the_shown_expiry_is_rewritten_only_when_idle() -> None:
    """During a long request the expiry lies in the past; before the first idle moment it moves."""
    story = Script(keep_alive=300)
    first = story.ask(A, 0)
    story.until(50)
    assert story.node.resident(50)[0].expires_at == 350
    story.end(first, 100)
    assert story.node.resident(150)[0].expires_at == 400
    story.ask(A, 200)
    story.until(900)
    assert story.node.resident(900)[0].expires_at == 400


def test_keep_alive_is_sticky_and_the_last_writer_wins() -> None:
    """Who names it changes it for all, in the order of arrival; who does not leaves it."""
    story = Script()
    at = story.warm(A, keep_alive=50)
    jobs = [story.ask(A, at, keep_alive=1000), story.ask(A, at, keep_alive=20), story.ask(A, at)]
    for number, job in enumerate(jobs):
        story.end(job, at + number)
    assert story.node.next_event() == at + 2 + 20


def test_keep_alive_zero_unloads_when_idle() -> None:
    """The model goes with the end of the request that said so."""
    story = Script()
    job = story.ask(A, 0, keep_alive=0)
    story.until(2)
    story.end(job, 7)
    assert story.times(Unloaded) == [("a", 7)]


def test_for_ever_never_expires() -> None:
    """With an infinite keep-alive nothing is due any more."""
    story = Script()
    story.warm(A, keep_alive=math.inf)
    assert story.node.next_event() is None
    assert story.resident(1e9) == ["a"]


def test_unload_now_or_when_idle() -> None:
    """An idle model goes at once, a busy one with its last request, one not there not at all."""
    story = Script()
    story.log += story.node.unload(A, 0)
    at = story.warm(A)
    story.log += story.node.unload(A, at)
    assert story.times(Unloaded) == [("a", at)]
    at = story.warm(A, at=at)
    job = story.ask(A, at)
    waiting = story.ask(A, at, keep_alive=100)
    story.log += story.node.unload(A, at + 1)
    assert story.node.resident(at + 1)[0].expires_at == at + 1
    story.end(job, at + 2)
    story.end(waiting, at + 3)
    assert story.times(Unloaded)[1:] == [("a", at + 3)]


def test_a_load_request_takes_no_slot() -> None:
    """Who only loads is answered while all slots are busy, and keeps none busy."""
    story = Script()
    at = story.warm(A)
    running = story.ask(A, at)
    loading = story.ask(A, at + 1, needs_slot=False, keep_alive=7)
    assert story.started(loading).at == at + 1
    story.end(loading, at + 1)
    story.end(running, at + 2)
    assert story.node.next_event() == at + 9


def test_two_names_of_one_file_are_one_runner() -> None:
    """It is shown under the name that loaded it first, and the other name is served by it."""
    alias = ModelSpec("alias", A.size, context=4096, digest=A.digest)
    story = Script()
    at = story.warm(A)
    assert story.has_started(story.ask(alias, at))
    assert story.resident(at) == ["a"]


def test_the_longest_lived_is_shown_first() -> None:
    """What is in memory is listed by expiry, latest first."""
    story = Script()
    at = story.warm(A, keep_alive=10)
    at = story.warm(B, at=at, keep_alive=1000)
    assert [each.name for each in story.node.resident(at)] == ["b", "a"]


def test_time_may_pass_in_one_step_or_in_many() -> None:
    """The outcomes are the same whether the node is asked at every event or once at the end."""
    many, once = Script(), Script()
    for story in (many, once):
        for spec in (A, B, C):
            story.ask(spec, 0, keep_alive=5)
    while (due := many.node.next_event()) is not None and due <= 100:
        many.until(due)
    once.until(100)
    assert many.log == once.log
    assert many.resident(100) == once.resident(100)
