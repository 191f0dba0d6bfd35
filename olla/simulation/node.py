"""How an Ollama server schedules: slots, one load at a time, memory, eviction, keep-alive.

Pure: every method takes the time (seconds) and returns what has happened by it. Produces no text
and no HTTP; whoever drives it says when a job's work is finished.

The rules are those of Ollama's scheduler (server/sched.go):

* A request for a resident model with the same load options goes straight to that model's slots
  and waits there without bound.
* Every other request stands in one queue, worked off strictly in order, one load at a time; when
  the queue is full it is refused.
* A model needs 80 % of the free memory at most; otherwise, and when as many models are loaded as
  may be, another one is evicted: idle ones first, then shortest keep-alive, then by name. A busy
  victim has to finish first, and the queue waits for it.
* Other load options mean that the model is unloaded and loaded again.
* A load whose request goes away is given up.
"""

import math
from collections import deque
from collections.abc import Iterable

import msgspec

from olla.simulation.catalogue import ModelSpec

__all__ = [
    "LOAD_OPTIONS",
    "Finished",
    "Job",
    "Node",
    "NodeLimits",
    "Outcome",
    "Refused",
    "Resident",
    "Started",
    "load_options",
]

LOAD_OPTIONS = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
)
"""Options that belong to a loaded model: a request with others reloads it."""

_FREE_SHARE = 0.8
_KV_SHARE = 1 / 50_000
"""Context memory per token and slot, as a share of the model's size: about 80 KB for 4 GB."""
_LOAD_SECONDS_MIN = 0.3
_AUTOMATIC_CONTEXTS = ((47 << 30, 262_144), (23 << 30, 32_768), (0, 4_096))
"""Ollama's own choice of context by memory."""


class NodeLimits(msgspec.Struct, frozen=True):
    """What a node is made of.

    `vram` is bytes; bandwidths are bytes per second, the warm one for a model that was unloaded
    less than `warm_seconds` ago and is still in the page cache; `keep_alive` is seconds.
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
    it does not say.
    """

    id: int
    model: ModelSpec
    options: tuple[tuple[str, float], ...] = ()
    keep_alive: float | None = None


class Started(msgspec.Struct, frozen=True):
    """The job has a slot. `load_seconds` is what loading its model took for it."""

    job: Job
    at: float
    load_seconds: float


class Refused(msgspec.Struct, frozen=True):
    """The queue is full."""

    job: Job


class Finished(msgspec.Struct, frozen=True):
    """A model was unloaded."""

    model: ModelSpec
    at: float


Outcome = Started | Refused | Finished


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


class _Runner(msgspec.Struct):
    name: str
    model: ModelSpec
    options: tuple[tuple[str, float], ...]
    context: int
    slots: int
    size: int
    vram: int
    keep_alive: float
    ready_at: float
    load_seconds: float
    expires_at: float = math.inf
    active: set[int] = msgspec.field(default_factory=set)
    waiting: deque[Job] = msgspec.field(default_factory=deque)

    @property
    def idle(self) -> bool:
        return not self.active and not self.waiting


class Node:
    """The scheduler of one node."""

    def __init__(self, limits: NodeLimits) -> None:
        self.limits = limits
        self._runners: dict[str, _Runner] = {}
        self._pending: deque[Job] = deque()
        self._loading: _Runner | None = None
        self._unloaded_at: dict[str, float] = {}
        self._out: list[Outcome] = []
        self.loads = 0
        """Loads that came to their end."""
        self.loads_aborted = 0
        self.unloads = 0

    # --- events -----------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> list[Outcome]:
        """A request arrives."""
        self._pass_time(now)
        runner = self._runners.get(job.model.digest)
        if runner is not None and runner.options == job.options:
            self._assign(runner, job, now, 0.0)
        elif len(self._pending) >= self.limits.max_queue:
            self._out.append(Refused(job))
        else:
            self._pending.append(job)
            self._work(now)
        return self._taken()

    def finish(self, job: Job, now: float) -> list[Outcome]:
        """A job that has started is done, or its client has left."""
        self._pass_time(now)
        runner = self._runners.get(job.model.digest)
        if runner is not None and job.id in runner.active:
            runner.active.discard(job.id)
            self._go_on(runner, now)
        return self._taken()

    def leave(self, job: Job, now: float) -> list[Outcome]:
        """The client of a job has left, wherever the job is."""
        self._pass_time(now)
        if self._pending and self._pending[0].id == job.id and self._loading is not None:
            self._loading = None
            self.loads_aborted += 1
        self._pending = deque(each for each in self._pending if each.id != job.id)
        runner = self._runners.get(job.model.digest)
        if runner is not None:
            runner.waiting = deque(each for each in runner.waiting if each.id != job.id)
            if job.id in runner.active:
                runner.active.discard(job.id)
                self._go_on(runner, now)
        self._work(now)
        return self._taken()

    def unload(self, model: ModelSpec, now: float) -> list[Outcome]:
        """Unload a model as soon as it is idle."""
        self._pass_time(now)
        runner = self._runners.get(model.digest)
        if runner is not None:
            runner.keep_alive = 0.0
            if runner.idle:
                self._drop(runner, now)
                self._work(now)
        return self._taken()

    def advance(self, now: float) -> list[Outcome]:
        """Time has passed."""
        self._pass_time(now)
        return self._taken()

    # --- views ------------------------------------------------------------------------------

    def next_event(self) -> float | None:
        """When something happens by itself: a load ends, a model expires."""
        times = [
            runner.expires_at
            for runner in self._runners.values()
            if runner.idle and runner.expires_at < math.inf
        ]
        if self._loading is not None:
            times.append(self._loading.ready_at)
        return min(times, default=None)

    def resident(self, now: float) -> list[Resident]:
        """What is in memory, longest-lived first. A model that is being loaded is not shown."""
        shown = [
            Resident(
                name=runner.name,
                model=runner.model,
                size=runner.size,
                size_vram=runner.vram,
                context_length=runner.context,
                # Rewritten only when a runner goes idle; before that it is as if it had just.
                expires_at=(
                    now + runner.keep_alive if runner.expires_at == math.inf else runner.expires_at
                ),
                active=len(runner.active),
                waiting=len(runner.waiting),
            )
            for runner in self._runners.values()
        ]
        return sorted(shown, key=lambda each: each.expires_at, reverse=True)

    @property
    def queue_length(self) -> int:
        """Requests that wait for a load."""
        return len(self._pending)

    @property
    def loading(self) -> str | None:
        """The name of the model that is being loaded."""
        return self._loading.name if self._loading is not None else None

    # --- rules ------------------------------------------------------------------------------

    def _taken(self) -> list[Outcome]:
        out, self._out = self._out, []
        return out

    def _pass_time(self, now: float) -> None:
        while True:
            at = self.next_event()
            if at is None or at > now:
                return
            loading = self._loading
            if loading is not None and loading.ready_at <= at:
                self._loading = None
                self.loads += 1
                self._runners[loading.model.digest] = loading
                self._assign(loading, self._pending.popleft(), at, loading.load_seconds)
            else:
                for runner in [*self._runners.values()]:
                    if runner.idle and runner.expires_at <= at:
                        self._drop(runner, at)
            self._work(at)

    def _assign(self, runner: _Runner, job: Job, now: float, load_seconds: float) -> None:
        if job.keep_alive is not None:
            runner.keep_alive = job.keep_alive  # the last one who names it decides for all
        if len(runner.active) < runner.slots:
            runner.active.add(job.id)
            self._out.append(Started(job, now, load_seconds))
        else:
            runner.waiting.append(job)

    def _go_on(self, runner: _Runner, now: float) -> None:
        """A slot of a runner is free."""
        while runner.waiting and len(runner.active) < runner.slots:
            self._assign(runner, runner.waiting.popleft(), now, 0.0)
        if runner.idle:
            runner.expires_at = now + runner.keep_alive
            if runner.keep_alive <= 0:
                self._drop(runner, now)
            self._work(now)

    def _work(self, now: float) -> None:
        """Work off the queue as far as it goes: up to a load, or to a victim that is busy."""
        while self._pending and self._loading is None:
            job = self._pending[0]
            runner = self._runners.get(job.model.digest)
            if runner is not None and runner.options == job.options:
                self._pending.popleft()
                self._assign(runner, job, now, 0.0)
                continue
            victim = runner or self._victim(job)
            if victim is None:
                self._begin_load(job, now)
                return
            if not victim.idle:
                victim.keep_alive = 0.0  # it goes as soon as it has finished
                return
            self._drop(victim, now)

    def _victim(self, job: Job) -> _Runner | None:
        """Who has to go so that the job's model can be loaded; None when nobody has to."""
        runners = list(self._runners.values())
        free = self.limits.vram - sum(runner.vram for runner in runners)
        context, slots = self._shape(job)
        fits = self._needed(job.model, context, slots) <= _FREE_SHARE * free
        if not runners or (len(runners) < self.limits.max_loaded_models and fits):
            return None
        return min(runners, key=lambda each: (not each.idle, each.keep_alive, each.name))

    def _begin_load(self, job: Job, now: float) -> None:
        context, slots = self._shape(job)
        size = self._needed(job.model, context, slots)
        free = self.limits.vram - sum(runner.vram for runner in self._runners.values())
        seconds = self.load_seconds(job.model, now)
        keep_alive = self.limits.keep_alive if job.keep_alive is None else job.keep_alive
        self._loading = _Runner(
            name=job.model.name,
            model=job.model,
            options=job.options,
            context=context,
            slots=slots,
            size=size,
            vram=min(size, max(free, 0)),  # what does not fit runs on the processor
            keep_alive=keep_alive,
            ready_at=now + seconds,
            load_seconds=seconds,
        )

    def load_seconds(self, model: ModelSpec, now: float) -> float:
        """How long loading a model takes."""
        limits = self.limits
        last = self._unloaded_at.get(model.digest)
        warm = last is not None and now - last < limits.warm_seconds
        bandwidth = limits.warm_bandwidth if warm else limits.load_bandwidth
        return max(model.size / bandwidth, _LOAD_SECONDS_MIN)

    def _drop(self, runner: _Runner, now: float) -> None:
        del self._runners[runner.model.digest]
        self._unloaded_at[runner.model.digest] = now
        self.unloads += 1
        self._out.append(Finished(runner.model, now))

    def _shape(self, job: Job) -> tuple[int, int]:
        """Context length and slots under a job's options."""
        slots = 1 if job.model.embedding else self.limits.num_parallel
        wanted = dict(job.options).get("num_ctx")
        if wanted is None:
            wanted = next(
                context for vram, context in _AUTOMATIC_CONTEXTS if self.limits.vram >= vram
            )
        return max(4, min(int(wanted), job.model.context)), slots

    def _needed(self, model: ModelSpec, context: int, slots: int) -> int:
        return int(model.size * (1 + context * slots * _KV_SHARE))


def load_options(options: Iterable[tuple[str, object]]) -> tuple[tuple[str, float], ...]:
    """The load options among a request's options, in a comparable form. Nulls do not count."""
    return tuple(
        sorted(
            (name, float(value))
            for name, value in options
            if name in LOAD_OPTIONS and isinstance(value, (bool, int, float))
        )
    )
