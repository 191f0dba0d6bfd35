"""How an Ollama server schedules: slots, one load at a time, memory, eviction, keep-alive.

Pure: every event takes the time (seconds) and returns what has happened by it; `next_event` says
when to come back. Produces no text and no HTTP; whoever drives it says when a job's work is done.

The rules are those of Ollama's scheduler (server/sched.go):

* A request for a resident model with the same load options goes straight to that model's slots
  and waits there without bound.
* Every other request stands in one queue, worked off strictly in order, one load at a time; when
  the queue is full it is refused. The one that is being worked on has left the queue; one whose
  client has left keeps its place until its turn.
* A model needs 80 % of the free memory at most; otherwise, and when as many models are loaded as
  may be, another one is evicted: idle ones first, then shortest keep-alive, then by name. A busy
  victim has to finish first, and the queue waits until something has been unloaded. A request
  that names a keep-alive gives the victim that long again, and the queue goes on waiting.
* Other load options mean that the model is unloaded and loaded again.
* A load whose request goes away is given up; the next one in the queue begins its own.
* A request that only loads takes no slot.
"""

import math
from collections import deque

import msgspec

from olla.simulation.events import (
    Job,
    JobRefused,
    LoadAborted,
    LoadBegan,
    ModelLoaded,
    NodeLimits,
    Outcome,
    Resident,
    Started,
    Unloaded,
)
from olla.simulation.load_options import Options, compatible, context_length, needed
from olla.simulation.model_catalogue import ModelSpec

__all__ = ["Node"]

_FREE_SHARE = 0.8
_LOAD_SECONDS_MIN = 0.3


class _Pending(msgspec.Struct):
    """A place in the queue for loads."""

    job: Job
    since: float
    gone: bool = False


class _Runner(msgspec.Struct):
    """A loaded model, or one that is being loaded."""

    name: str
    model: ModelSpec
    options: Options
    context: int
    slots: int
    size: int
    vram: int
    keep_alive: float
    ready_at: float
    expires_at: float | None = None
    """None until it first goes idle."""
    users: set[int] = msgspec.field(default_factory=set)
    """Every job that keeps it: those with a slot, those that wait for one, those that only load."""
    active: set[int] = msgspec.field(default_factory=set)
    waiting: deque[tuple[Job, float]] = msgspec.field(default_factory=deque)

    @property
    def idle(self) -> bool:
        return not self.users

    @property
    def gpu_share(self) -> float:
        return self.vram / self.size


class Node:
    """The scheduler of one node."""

    def __init__(self, limits: NodeLimits) -> None:
        self.limits = limits
        self._runners: dict[str, _Runner] = {}
        self._pending: deque[_Pending] = deque()
        self._loading: _Runner | None = None
        self._awaits_unload = False
        self._unloaded_at: dict[str, float] = {}
        self._out: list[Outcome] = []
        self.loads = 0
        """Loads that came to their end."""
        self.loads_aborted = 0
        self.unloads = 0
        self.refused = 0

    # --- events -----------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> list[Outcome]:
        """A request arrives."""
        self._pass_time(now)
        runner = self._runners.get(job.model.digest)
        if runner is not None and compatible(runner.options, job.options):
            self._assign(runner, job, now, 0.0)
        elif len(self._pending) > self.limits.max_queue:
            self.refused += 1
            self._out.append(JobRefused(job, now))
        else:
            self._pending.append(_Pending(job, now))
            self._work(now)
        return self._taken()

    def finish(self, job: Job, now: float) -> list[Outcome]:
        """A job that has started is done, or its client has left."""
        return self.leave(job, now)

    def leave(self, job: Job, now: float) -> list[Outcome]:
        """The client of a job has left, wherever the job is."""
        self._pass_time(now)
        for place, pending in enumerate(self._pending):
            if pending.job.id == job.id:
                pending.gone = True
                if place == 0 and self._loading is not None:
                    self._out.append(LoadAborted(self._loading.model, now))
                    self._loading = None
                    self.loads_aborted += 1
                self._work(now)
                return self._taken()
        runner = self._runners.get(job.model.digest)
        if runner is not None and job.id in runner.users:
            self._release(runner, job, now)
        return self._taken()

    def unload(self, model: ModelSpec, now: float) -> list[Outcome]:
        """Unload a model as soon as it is idle. One that is being loaded is not there yet."""
        self._pass_time(now)
        runner = self._runners.get(model.digest)
        if runner is not None:
            runner.keep_alive = 0.0
            runner.expires_at = now
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
        """When something happens by itself: a load ends, a model expires. None: never."""
        times = [runner.expires_at for runner in self._runners.values() if runner.idle]
        if self._loading is not None:
            times.append(self._loading.ready_at)
        return min((at for at in times if at is not None and at < math.inf), default=None)

    def resident(self, now: float) -> list[Resident]:
        """What is in memory, longest-lived first. A model that is being loaded is not shown.

        The expiry is rewritten only when a runner goes idle, so it may lie in the past while one
        works; before it was ever idle, it is as if it went idle now.
        """
        shown = [
            Resident(
                name=runner.name,
                model=runner.model,
                size=runner.size,
                size_vram=runner.vram,
                context_length=runner.context,
                expires_at=(
                    now + runner.keep_alive if runner.expires_at is None else runner.expires_at
                ),
                active=len(runner.active),
                waiting=len(runner.waiting),
            )
            for runner in self._runners.values()
        ]
        return sorted(shown, key=lambda each: each.expires_at, reverse=True)

    @property
    def queue_length(self) -> int:
        """Requests that wait for a load, the one that is being loaded included."""
        return sum(not pending.gone for pending in self._pending)

    @property
    def loading(self) -> str | None:
        """The name of the model that is being loaded."""
        return self._loading.name if self._loading is not None else None

    def load_seconds(self, model: ModelSpec, now: float) -> float:
        """How long loading a model would take if it began now."""
        limits = self.limits
        last = self._unloaded_at.get(model.digest)
        warm = last is not None and now - last < limits.warm_seconds
        bandwidth = limits.warm_bandwidth if warm else limits.load_bandwidth
        return max(model.size / bandwidth, _LOAD_SECONDS_MIN)

    # --- rules ------------------------------------------------------------------------------

    def _taken(self) -> list[Outcome]:
        out, self._out = self._out, []
        return out

    def _pass_time(self, now: float) -> None:
        """Let everything happen that was due by `now`, in its order."""
        while True:
            at = self.next_event()
            if at is None or at > now:
                return
            loading = self._loading
            if loading is not None and loading.ready_at <= at:
                self._loading = None
                self.loads += 1
                self._runners[loading.model.digest] = loading
                self._out.append(ModelLoaded(loading.model, at))
                pending = self._pending.popleft()
                self._assign(loading, pending.job, at, at - pending.since)
            else:
                for runner in [*self._runners.values()]:
                    if runner.idle and runner.expires_at is not None and runner.expires_at <= at:
                        self._drop(runner, at)
            self._work(at)

    def _assign(self, runner: _Runner, job: Job, now: float, load_seconds: float) -> None:
        """Give a job to a runner: to a slot, or to the line in front of its slots."""
        if job.keep_alive is not None:
            runner.keep_alive = job.keep_alive  # the last one who names it decides for all
        runner.users.add(job.id)
        if not job.needs_slot:
            self._out.append(Started(job, now, load_seconds, runner.gpu_share))
        elif len(runner.active) < runner.slots:
            runner.active.add(job.id)
            self._out.append(Started(job, now, load_seconds, runner.gpu_share))
        else:
            runner.waiting.append((job, load_seconds))

    def _release(self, runner: _Runner, job: Job, now: float) -> None:
        """A job no longer uses a runner."""
        runner.users.discard(job.id)
        if job.id in runner.active:
            runner.active.discard(job.id)
            if runner.waiting:
                following, load_seconds = runner.waiting.popleft()
                runner.active.add(following.id)
                self._out.append(Started(following, now, load_seconds, runner.gpu_share))
        else:
            runner.waiting = deque(each for each in runner.waiting if each[0].id != job.id)
        if runner.idle:
            runner.expires_at = now + runner.keep_alive
            if runner.keep_alive <= 0:
                self._drop(runner, now)
                self._work(now)

    def _work(self, now: float) -> None:
        """Work off the queue as far as it goes: up to a load, or to a victim that is busy."""
        while self._pending and self._loading is None and not self._awaits_unload:
            pending = self._pending[0]
            job = pending.job
            if pending.gone:
                self._pending.popleft()
                continue
            runner = self._runners.get(job.model.digest)
            if runner is not None and compatible(runner.options, job.options):
                self._pending.popleft()
                self._assign(runner, job, now, now - pending.since)
                continue
            victim = runner or self._victim(job)
            if victim is None:
                self._begin_load(job, now)
            elif victim.idle:
                self._drop(victim, now)
            else:
                victim.keep_alive = 0.0
                self._awaits_unload = True

    def _victim(self, job: Job) -> _Runner | None:
        """Who has to go so that the job's model can be loaded; None when nobody has to."""
        runners = self._runners.values()
        if not runners:
            return None
        context, slots = self._shape(job)
        fits = needed(job.model, context, slots) <= _FREE_SHARE * self._free()
        if fits and len(runners) < self.limits.max_loaded_models:
            return None
        return min(runners, key=lambda each: (not each.idle, each.keep_alive, each.name))

    def _begin_load(self, job: Job, now: float) -> None:
        context, slots = self._shape(job)
        size = needed(job.model, context, slots)
        self._loading = _Runner(
            name=job.model.name,
            model=job.model,
            options=job.options,
            context=context,
            slots=slots,
            size=size,
            vram=min(size, self._free()),  # what does not fit runs on the processor
            keep_alive=self.limits.keep_alive,
            ready_at=now + self.load_seconds(job.model, now),
        )
        self._out.append(LoadBegan(job.model, now, self._loading.ready_at))

    def _drop(self, runner: _Runner, now: float) -> None:
        del self._runners[runner.model.digest]
        warm_since = now - self.limits.warm_seconds
        self._unloaded_at = {
            digest: at for digest, at in self._unloaded_at.items() if at > warm_since
        }
        self._unloaded_at[runner.model.digest] = now
        self._awaits_unload = False
        self.unloads += 1
        self._out.append(Unloaded(runner.model, now))

    def _free(self) -> int:
        """Bytes of video memory that nobody uses."""
        return self.limits.vram - sum(runner.vram for runner in self._runners.values())

    def _shape(self, job: Job) -> tuple[int, int]:
        """Context length and slots under a job's options."""
        slots = 1 if job.model.embedding else self.limits.num_parallel
        return context_length(job.model, job.options, self.limits.vram), slots
