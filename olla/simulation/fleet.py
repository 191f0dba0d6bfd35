"""Simulate a fleet in discrete events: simulated nodes, production's admission and routing, virtual
time.

The nodes are `node.Node`, the scheduler that the simulated server puts behind HTTP. Choice, queue,
twin and estimates are those of the router, unchanged. Everything is an event at a time, so a run
takes as long as its arithmetic, and the same arrivals and seed give the same run. The caller
defines requests and nodes.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from math import inf
from typing import assert_never

import msgspec

from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import (
    AbandonLoad,
    AnswerStats,
    BeginLoad,
    Granted,
    Lease,
    Refused,
    Ticket,
)
from olla.failures import Failure, Kind
from olla.fleet.health import Health
from olla.fleet.instance import ModelLoad
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import ResidentModel, Snapshot, resident_by_name
from olla.routing.decision import Refuse
from olla.routing.features import Features
from olla.simulation.events import (
    Job,
    JobRefused,
    LoadAborted,
    LoadBegan,
    ModelLoaded,
    Outcome,
    Started,
    Unloaded,
)
from olla.simulation.load_options import load_options
from olla.simulation.machine import (
    Arrival,
    Machine,
    Outage,
    Result,
    RunningMachine,
    RunningRequest,
)
from olla.simulation.node import Node

__all__ = ["FleetRun"]

_BYTES_PER_TOKEN = 4.5
_OFFLOADED_SPEED = 0.1
"""The speed of the part of a model outside of video memory, relative to the part inside."""


_NOTHING = Features(models=(), dialect="ollama")


class FleetRun:
    """One run: arrivals in, results out."""

    def __init__(
        self,
        machines: Sequence[Machine],
        arrivals: Iterable[Arrival],
        dispatcher: Dispatcher,
        *,
        probe_interval: float = 5.0,
        outages: Sequence[Outage] = (),
    ) -> None:
        """`probe_interval` is how often each node is asked what it has in memory, in seconds."""
        self.dispatcher = dispatcher
        self.now = 0.0
        self.results: list[Result] = []
        self._machines = [RunningMachine(each, at) for at, each in enumerate(machines)]
        self._by_name = {each.shape.spec.name: each for each in self._machines}
        self._snapshot = Snapshot.of(each.view for each in self._machines)
        self._arrivals = iter(arrivals)
        self._probe_interval = probe_interval
        self._outages = outages
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._jobs = count()
        self._tickets = count()
        self._by_ticket: dict[Ticket, RunningRequest] = {}
        self._active = 0
        self._tick_at: float | None = None
        self._arriving = True

    @property
    def loads(self) -> int:
        """Loads begun on all nodes."""
        return sum(each.loads for each in self._machines)

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes by endpoint name."""
        return {each.shape.spec.name: each.node for each in self._machines}

    @property
    def snapshot(self) -> Snapshot:
        """The fleet as the router has been told."""
        return self._snapshot

    def run(self, until: float = inf, *, progress: Callable[[float], None] | None = None) -> None:
        """Let everything happen: until all requests have ended, or `until` (seconds)."""
        self._next_arrival()
        for place, machine in enumerate(self._machines):
            self._at(
                self._probe_interval * (place + 1) / len(self._machines),
                partial(self._probe, machine),
            )
        for outage in self._outages:
            self._at(outage.start, partial(self._down, outage.node))
            self._at(outage.end, partial(self._back, outage.node))
        events = self._events
        while events and (self._arriving or self._active):
            at, _, act = heapq.heappop(events)
            if at > until:
                return
            self.now = at
            act()
            self._obey()
            if progress is not None:
                progress(at)

    # --- events ---------------------------------------------------------------------------------

    def _at(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._order), act))

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is None:
            self._arriving = False
            return
        self._at(arrival.at, lambda: self._arrive(arrival))

    def _arrive(self, arrival: Arrival) -> None:
        self._next_arrival()
        result = Result(arrival)
        if arrival.outside is not None:
            self._submit(RunningRequest(result, _NOTHING), self._by_name[arrival.outside])
            return
        self.results.append(result)
        name = canonical(arrival.model)
        habits = self.dispatcher.twins.habits(name)
        text = int(arrival.prompt * _BYTES_PER_TOKEN)
        features = Features(
            models=(name,),
            dialect="ollama",
            ticket=next(self._tickets),
            load_options=arrival.options,
            keep_alive=arrival.keep_alive,
            prompt_tokens=habits.tokens(text) if habits is not None else float(arrival.prompt),
            embedding=arrival.embedding,
            caller=arrival.caller,
        )
        request = RunningRequest(result, features)
        self._active += 1
        if arrival.patience < inf:
            self._at(arrival.at + arrival.patience, lambda: self._lose_patience(request))
        self._ask(request)

    def _ask(self, request: RunningRequest) -> None:
        arrival = request.result.arrival
        granted = self.dispatcher.ask(
            request.features, self._snapshot, arrival.model, self.now, asked_at=arrival.at
        )
        match granted:
            case Lease():
                self._send(request, granted)
            case Ticket():
                request.ticket = granted
                request.features = granted.features
                self._by_ticket[granted] = request
                if request.result.predicted is None:
                    request.result.predicted = granted.predicted
            case Refuse():
                self._end(request, granted.failure.kind.value)
            case never:
                assert_never(never)

    def _send(self, request: RunningRequest, lease: Lease) -> None:
        result = request.result
        request.ticket, request.lease = None, lease
        request.features = lease.features
        result.attempts += 1
        result.endpoint = lease.choice.view.name
        if result.predicted is None:
            result.predicted = lease.predicted
        machine = self._by_name[result.endpoint]
        if not machine.up:
            self._broken(request)
            return
        self._submit(request, machine)

    def _submit(self, request: RunningRequest, machine: RunningMachine) -> None:
        arrival = request.result.arrival
        if not machine.up:
            return
        request.machine = machine
        request.job = job = Job(
            next(self._jobs),
            machine.specs[canonical(arrival.model)],
            load_options(arrival.options),
            arrival.keep_alive,
        )
        machine.jobs[job.id] = request
        self._on_node(machine, machine.node.submit(job, self.now))

    # --- nodes ----------------------------------------------------------------------------------

    def _on_node(self, machine: RunningMachine, outcomes: list[Outcome]) -> None:
        """What the node's scheduler has done, and when it wants to be called again."""
        for outcome in outcomes:
            match outcome:
                case Started():
                    self._started(machine, outcome)
                case LoadBegan():
                    machine.loads += 1
                case JobRefused():
                    name = machine.shape.spec.name
                    busy = Failure(Kind.UPSTREAM_BUSY, f"endpoint '{name}' is busy", name)
                    self._failed(machine.jobs.pop(outcome.job.id), busy)
                case ModelLoaded() | LoadAborted() | Unloaded():
                    pass
                case never:
                    assert_never(never)
        wake = machine.node.next_event()
        if wake is not None and wake < machine.wake_at:
            machine.wake_at = wake
            self._at(wake, lambda: self._wake(machine, machine.node, wake))

    def _wake(self, machine: RunningMachine, node: Node, at: float) -> None:
        if machine.node is not node:
            return
        if machine.wake_at == at:
            machine.wake_at = inf
        self._on_node(machine, node.advance(self.now))

    def _started(self, machine: RunningMachine, outcome: Started) -> None:
        job = outcome.job
        owner = machine.jobs.get(job.id)
        if owner is None:
            return  # it leaves in this very moment
        match owner:
            case ModelLoad():
                self._at(outcome.at, lambda: self._loaded(machine, job, owner))
            case RunningRequest():
                self._working(machine, outcome, owner)
            case never:
                assert_never(never)

    def _working(self, machine: RunningMachine, outcome: Started, owner: RunningRequest) -> None:
        job = outcome.job
        arrival = owner.result.arrival
        prompt, output = machine.speed(job.model)
        share = outcome.gpu_share + (1 - outcome.gpu_share) * _OFFLOADED_SPEED
        reading, writing = arrival.prompt / (prompt * share), arrival.output / (output * share)
        answer = AnswerStats(
            prompt_bytes=int(arrival.prompt * _BYTES_PER_TOKEN),
            prompt_tokens=arrival.prompt,
            output_tokens=arrival.output,
            prompt_seconds=reading,
            output_seconds=writing,
            load_seconds=outcome.load_seconds,
        )
        first = outcome.at + reading
        self._at(first, lambda: self._first_token(machine, job, owner))
        self._at(first + writing, lambda: self._finished(machine, job, owner, answer))

    def _first_token(self, machine: RunningMachine, job: Job, request: RunningRequest) -> None:
        if machine.jobs.get(job.id) is not request or request.lease is None:
            return
        request.result.first = self.now
        self.dispatcher.began(request.lease, self.now)

    def _finished(
        self, machine: RunningMachine, job: Job, request: RunningRequest, answer: AnswerStats
    ) -> None:
        if machine.jobs.pop(job.id, None) is None:
            return
        self._on_node(machine, machine.node.finish(job, self.now))
        if request.lease is not None:
            lease, request.lease = request.lease, None
            self.dispatcher.release(lease, self.now, answer)
            self._end(request, "done")

    def _loaded(self, machine: RunningMachine, job: Job, loading: ModelLoad) -> None:
        if machine.jobs.pop(job.id, None) is None:
            return
        self._on_node(machine, machine.node.finish(job, self.now))
        self.dispatcher.load_ended(loading, self.now)
        self._look(machine)  # the router asks a node at once about what it has caused there

    # --- ends -----------------------------------------------------------------------------------

    def _end(self, request: RunningRequest, outcome: str) -> None:
        request.result.ended = self.now
        request.result.outcome = outcome
        self._active -= 1

    def _lose_patience(self, request: RunningRequest) -> None:
        if request.result.first is not None or request.result.ended is not None:
            return
        if request.ticket is not None:
            self._by_ticket.pop(request.ticket, None)
            self.dispatcher.leave(request.ticket, self.now)
            request.ticket = None
        elif request.lease is not None:
            lease, request.lease = request.lease, None
            machine, job = request.machine, request.job
            if (
                machine is not None
                and job is not None
                and machine.jobs.pop(job.id, None) is not None
            ):
                self._on_node(machine, machine.node.leave(job, self.now))
            self.dispatcher.release(lease, self.now)
        self._end(request, "left")

    def _broken(self, request: RunningRequest) -> None:
        """The endpoint failed it: elsewhere, if nothing was sent to the client yet."""
        lease, request.lease = request.lease, None
        assert lease is not None
        self.dispatcher.release(lease, self.now)
        if request.result.first is not None:
            self._end(request, "broken")
            return
        tried = (*request.features.tried, lease.choice.view.name)
        request.features = msgspec.structs.replace(request.features, tried=tried)
        self._ask(request)

    def _failed(self, owner: RunningRequest | ModelLoad, failure: Failure) -> None:
        """A node does not do what it was asked for."""
        match owner:
            case ModelLoad():
                self.dispatcher.load_ended(owner, self.now, failure)
            case RunningRequest():
                if owner.lease is not None:
                    self._broken(owner)
            case never:
                assert_never(never)

    def _down(self, name: str) -> None:
        machine = self._by_name[name]
        machine.up = False
        machine.node = Node(machine.shape.limits)
        machine.wake_at = inf
        jobs, machine.jobs = machine.jobs, {}
        machine.view = msgspec.structs.replace(
            machine.view, health=Health.OFFLINE, resident={}, resident_at=None
        )
        self._publish(machine)
        for owner in jobs.values():
            self._failed(owner, Failure(Kind.RESET, f"endpoint '{name}' went away", name))

    def _back(self, name: str) -> None:
        machine = self._by_name[name]
        machine.up = True
        machine.view = msgspec.structs.replace(
            machine.view, health=Health.HEALTHY, resident={}, resident_at=self.now
        )
        self._publish(machine)

    # --- probes, the queue, the actions ---------------------------------------------------------

    def _probe(self, machine: RunningMachine) -> None:
        self._at(self.now + self._probe_interval, lambda: self._probe(machine))
        self._look(machine)

    def _look(self, machine: RunningMachine) -> None:
        if not machine.up:
            return
        self._on_node(machine, machine.node.advance(self.now))
        resident_models = [
            ResidentModel(
                each.name,
                each.model.digest,
                each.size,
                each.size_vram,
                each.context_length,
                each.expires_at,
            )
            for each in machine.node.resident(self.now)
        ]
        machine.view = msgspec.structs.replace(
            machine.view,
            resident=resident_by_name(resident_models, machine.models),
            resident_at=self.now,
            resident_wall=self.now,
        )
        self._publish(machine)

    def _publish(self, machine: RunningMachine) -> None:
        self._snapshot = self._snapshot.replaced(machine.view)
        self.dispatcher.changed(self._snapshot, self.now)

    def _tick(self) -> None:
        self._tick_at = None
        self.dispatcher.tick(self.now)

    def _obey(self) -> None:
        """Do what the dispatcher asks for, until it asks for nothing more."""
        while actions := self.dispatcher.take_actions():
            for action in actions:
                match action:
                    case Granted():
                        request = self._by_ticket.pop(action.ticket)
                        self._send(request, action.lease)
                    case Refused():
                        request = self._by_ticket.pop(action.ticket)
                        request.ticket = None
                        self._end(request, action.refusal.failure.kind.value)
                    case BeginLoad():
                        self._begin_load(action)
                    case AbandonLoad():
                        self._abandon_load(action)
                    case never:
                        assert_never(never)
        if self._tick_at is None:
            tick = self.dispatcher.next_tick(self.now)
            if tick is not None:
                self._tick_at = tick
                self._at(tick, self._tick)

    def _begin_load(self, action: BeginLoad) -> None:
        loading = action.loading
        machine = self._by_name[loading.instance.twin.name]
        if not machine.up:
            gone = Failure(Kind.CONNECT_REFUSED, "the node is away", machine.shape.spec.name)
            self.dispatcher.load_ended(loading, self.now, gone)
            return
        model = machine.specs[loading.instance.model]
        job = Job(next(self._jobs), model, load_options(loading.options), None, needs_slot=False)
        machine.jobs[job.id] = loading
        self._on_node(machine, machine.node.submit(job, self.now))

    def _abandon_load(self, action: AbandonLoad) -> None:
        machine = self._by_name[action.loading.instance.twin.name]
        for number, owner in machine.jobs.items():
            if owner is action.loading:
                del machine.jobs[number]
                model = machine.specs[action.loading.instance.model]
                self._on_node(machine, machine.node.leave(Job(number, model), self.now))
                return
