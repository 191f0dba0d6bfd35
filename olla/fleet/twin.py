"""The twin of a node: what olla believes is going on there between two probes.

Advanced by what olla sends and sees finish, corrected by what probes tell, and patient with what
others do to the node. Follows Ollama's scheduler: slots per loaded model, one load at a time,
room by memory and count, victims idle first, then by keep-alive, then by name. Mutable, owned by
the dispatcher; routing reads it. Times are monotonic seconds, sizes bytes.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from math import inf

from olla.fleet.breaker import BreakerState
from olla.fleet.estimates import EndpointRates, ModelHabits
from olla.fleet.instance import (
    KEEP_ALIVE,
    OVERHEAD,
    WARM_SECONDS,
    Flight,
    Line,
    Loading,
    LoadOptions,
)
from olla.fleet.slots import Slots
from olla.fleet.snapshot import EndpointView, Instance, Model

__all__ = ["Names", "Twin"]

_EXPIRY_MIN = 10.0
"""Seconds a model that was shown is taken to stay, whatever its node's clock says."""
_FREE_SHARE = 0.8
"""A model must fit into this share of what is free, or others are evicted."""
_MAX_LOADED = 3
"""Ollama's default `OLLAMA_MAX_LOADED_MODELS`, per graphics card."""
_SIZE_UNKNOWN = 4.0e9
_NO_MODELS: Mapping[str, Model] = {}


class Names:
    """The lines of a twin by canonical model name; several names may lead to one.

    A line is made when it is first looked up: a node may list ten thousand models, of which few
    are ever asked for, and making all their lines took 0.1 s.
    """

    __slots__ = ("_made", "_models", "_twin")

    def __init__(self, twin: "Twin") -> None:
        self._twin = twin
        self._models = _NO_MODELS
        self._made: dict[str, Line] = {}

    def __contains__(self, model: str) -> bool:
        return model in self._models

    def __getitem__(self, model: str) -> Line:
        """The line of a model. Raises KeyError: the node does not list it."""
        line = self._made.get(model)
        if line is None:
            line = self._made[model] = self._twin.line_of(model, self._models[model])
        return line

    def get(self, model: str) -> Line | None:
        """The line of a model; None where the node does not list it."""
        return self[model] if model in self._models else None

    def values(self) -> list[Line]:
        """The lines that were looked up so far."""
        return [*self._made.values()]

    def first(self, most: int) -> list[tuple[str, Line]]:
        """So many names with their lines, those first that were looked up before."""
        names = [*self._made]
        names += [each for each in islice(self._models, most) if each not in self._made]
        return [(name, self[name]) for name in names[:most]]

    def follow(self, models: Mapping[str, Model]) -> None:
        """The node lists these models from now on."""
        self._models = models
        self._made = {name: line for name, line in self._made.items() if name in models}
        for name in [*self._made]:
            model, line = models[name], self._made[name]
            if (model.digest or name) != line.identity:
                del self._made[name]  # another model has taken the name
            else:
                line.embedding = line.embedding or model.embedding


class Twin:
    """One node. `habits` are those of all models by identity, shared by the twins of a fleet."""

    def __init__(
        self,
        view: EndpointView,
        rates: EndpointRates,
        habits: dict[str, ModelHabits] | None = None,
    ) -> None:
        self.rates = rates
        self._habits: dict[str, ModelHabits] = {} if habits is None else habits
        self.stuck: set[Line] = set()
        """Lines on which nothing moves although the endpoint says that all is well."""
        self.refusing: set[Line] = set()
        """Lines for which the endpoint has refused requests lately."""
        self.set_view(view)
        self.lines: dict[str, Line] = {}
        """Lines by identity, as far as they were looked up."""
        self.names = Names(self)
        """Lines by canonical model name."""
        self.in_flight = 0
        self.on_trial = False
        self.loading: Loading | None = None
        self.pending: deque[Loading] = deque()
        """Loads caused by requests that were sent, and that wait for the one under way."""
        self.wanted: dict[Line, float] = {}
        """Loads that requests in olla wait for and that have not begun, with their seconds."""
        self.unloaded_at: dict[str, float] = {}
        self.residents: dict[str, Line] = {}
        """Lines whose model is in memory, by identity; only where that can be known."""
        self._quiet_until = -inf
        """No model in memory expires before."""
        self._capacity = inf
        self._total = 0.0
        self._largest = 0.0
        self._most = 0

    def set_view(self, view: EndpointView) -> None:
        """Take in what is known of the endpoint; what every decision asks is kept at hand."""
        profile = view.profile
        self.view = view
        self.name = view.spec.name
        self.kind = profile.name if profile is not None else ""
        """The kind of server; empty while it is unknown."""
        self.tells_residency = profile is not None and profile.tells_residency
        """Whether it can be known what is in memory."""
        self.dialects: frozenset[str] = profile.dialects if profile is not None else frozenset()
        self.clear = (
            profile is not None
            and view.health.routable
            and view.breaker is BreakerState.CLOSED
            and not view.ramp
            and not self.stuck
            and not self.refusing
        )
        """Whether nothing about the endpoint itself keeps a request from it."""

    def new_slots(self) -> Slots:
        """Slots of a model that is about to be known."""
        return Slots(self.view.spec.num_parallel, first=1 if self.tells_residency else 8)

    # --- what olla does and sees ----------------------------------------------------------------

    def sent(self, flight: Flight, now: float) -> None:
        """A request was sent. It may cause a load.

        This, `began` and `ended` are on every request's way.
        """
        self.pass_time(now)
        self.in_flight += 1
        line = flight.line
        if line is None:
            return
        line.habits.arrivals.add(now)
        line.used_at = now
        flight.crowd = len(line.flights)
        flight.finished = line.finished
        line.flights[flight] = None
        if flight.keep_alive is not None:
            line.keep_alive = flight.keep_alive
        if not line.ready(flight.options, now) and self.tells_residency:
            self._queue_load(line, flight.options, now)
        else:
            line.expires_at = inf

    def began(self, flight: Flight, now: float) -> None:
        """The first byte of its answer came: its model is in memory, whatever was believed."""
        self.pass_time(now)
        flight.began = now
        line = flight.line
        if line is not None:
            line.moved_at = now
            if line in self.stuck or line in self.refusing:
                line.refusals = 0
                self.refusing.discard(line)
                self.set_stuck(line, stuck=False)
        if line is None or not self.tells_residency:
            return
        if not line.ready(flight.options, now):
            self._now_resident(line, flight.options, now)

    def ended(self, flight: Flight, now: float) -> None:
        """It is over, however it ended. A load that only it waited for is given up with it."""
        self.pass_time(now)
        self.in_flight -= 1
        line = flight.line
        if line is None:
            return
        line.flights.pop(flight, None)
        if flight.began is not None:
            line.moved_at = now
        line.finished += 1
        line.used_at = now
        if flight.began is None:
            self._give_up(line)
        if not line.flights and line.resident and self.tells_residency:
            line.expires_at = now + line.keep_alive
            self._quiet_until = min(self._quiet_until, line.expires_at)
            if line.keep_alive <= 0:
                self._unload(line, now)

    def start_load(self, line: Line, options: LoadOptions, now: float) -> Loading:
        """A request of olla's own begins to load a model."""
        self.pass_time(now)
        loading = self._queue_load(line, options, now)
        loading.owned = True
        return loading

    def load_ended(self, loading: Loading, now: float, *, loaded: bool) -> None:
        """A load of olla's own is over; when it went well, its time is learned from."""
        if self.loading is loading:
            self.loading = None
        elif loading in self.pending:
            self.pending.remove(loading)
        if loaded:
            if loading.alone and now > loading.began:
                loading.line.rates.loaded(now - loading.began, warm=loading.warm)
            self._now_resident(loading.line, loading.options, now)
        self._next_load(now)

    def pass_time(self, now: float) -> None:
        """Let happen what is expected by now: loads end, models expire."""
        while self.loading is not None and not self.loading.owned and self.loading.ready_at <= now:
            done = self.loading
            self._now_resident(done.line, done.options, done.ready_at)
        if now < self._quiet_until:
            return  # nearly always, and this is asked three times a request
        for line in [*self.residents.values()]:
            if line.expires_at <= now and not line.flights:
                self._unload(line, line.expires_at)
        self._quiet_until = min(
            (line.expires_at for line in self.residents.values() if not line.flights), default=inf
        )

    def set_stuck(self, line: Line, *, stuck: bool) -> None:
        """Nothing moves on a line, or it moves again."""
        if stuck:
            self.stuck.add(line)
        else:
            self.stuck.discard(line)
        self.set_view(self.view)

    def refused(self, line: Line, now: float, retry_after: float | None) -> None:
        """The endpoint has refused a request for a model, see `Line.refuse`."""
        line.refuse(now, retry_after)
        self.refusing.add(line)
        self.set_view(self.view)

    # --- what probes tell -----------------------------------------------------------------------

    def saw(self, view: EndpointView, asked_at: float, now: float) -> None:
        """A probe told what is in memory, as of `asked_at`. What olla did since then outweighs
        it, and a load under way is not shown."""
        self.pass_time(now)
        told: dict[str, Instance] = {}
        for name, instance in view.resident.items():
            line = self.names.get(name)
            if line is not None:
                told[line.identity] = instance
        for identity, instance in told.items():
            self._is_there(self.lines[identity], instance, asked_at, view.resident_wall)
        gone = [
            line
            for line in self.residents.values()
            if line.identity not in told and not line.flights and line.used_at < asked_at
        ]
        early = [line for line in gone if line.expires_at > asked_at]
        for line in gone:
            self._unload(line, asked_at)
        self._learn_room(told, sum(line.footprint(()) for line in early))

    def _is_there(
        self, line: Line, instance: Instance, asked_at: float, wall: float | None
    ) -> None:
        if not line.resident:
            if self.unloaded_at.get(line.identity, -inf) > asked_at:
                return  # it was there when the probe asked, and has gone since
            self._now_resident(line, None, asked_at)
        elif (
            line.context is not None
            and instance.context_length != line.context
            and line.used_at < asked_at
        ):
            line.options = None  # somebody else has reloaded it in another way
        line.context = instance.context_length
        if not line.flights and line.used_at < asked_at:
            self._learn_expiry(line, instance, asked_at, wall)
        if instance.size:
            line.occupied = float(instance.size_vram or instance.size)
            if line.options is not None:
                line.footprints[line.options] = float(instance.size)
            elif not line.footprints:
                line.footprints[()] = float(instance.size)

    def _learn_expiry(
        self, line: Line, instance: Instance, asked_at: float, wall: float | None
    ) -> None:
        """An idle model goes when the node says; whoever used it last said how long it stays."""
        self._quiet_until = -inf
        line.expires_at = asked_at + line.keep_alive
        if instance.expires_at is not None and wall is not None:
            left = instance.expires_at - wall
            line.expires_at = asked_at + max(left, _EXPIRY_MIN)
            if left > 0:
                idle = asked_at - line.used_at if line.used_at > -inf else 0.0
                line.keep_alive = left + idle

    def _learn_room(self, told: dict[str, Instance], displaced: float) -> None:
        """`displaced` are the bytes of models that went before their time."""
        total = float(sum(each.size_vram or each.size or 0 for each in told.values()))
        self._most = max(self._most, len(told))
        self._total = max(self._total, total)
        spilled = any(
            each.size_vram is not None and each.size_vram < (each.size or 0)
            for each in told.values()
        )
        if spilled:
            self._capacity = total  # it did not fit: the memory is full
        elif total > self._capacity:
            self._capacity = total
        elif displaced and told and len(told) < self.max_loaded:
            self._capacity = min(self._capacity, total + displaced)

    # --- room and victims -----------------------------------------------------------------------

    @property
    def capacity(self) -> float:
        """Bytes of memory for models: told, else learned.

        At least what was seen in memory together; as long as nothing was seen not to fit, no more
        than what the largest model on disk needs, because whoever put it there can use it.
        """
        told = self.view.spec.vram
        if told is not None:
            return float(told)
        if self._capacity < inf:
            return self._capacity
        return max(self._total, self._largest * OVERHEAD / _FREE_SHARE)

    @property
    def max_loaded(self) -> int:
        """How many models may be in memory: told, else the server's default or more, once seen."""
        return self.view.spec.max_loaded_models or max(_MAX_LOADED, self._most)

    def victims(self, line: Line, options: LoadOptions) -> list[Line]:
        """Who has to go, in order, so that the model can be loaded with these options."""
        gone = [line] if line.resident else []
        there = [each for each in self.residents.values() if each is not line]
        there.sort(key=lambda each: (bool(each.flights), each.keep_alive, each.model))
        needed = line.footprint(options)
        capacity = self.capacity
        free = capacity - sum(each.occupied or each.footprint(each.options or ()) for each in there)
        count = len(there)
        for each in there:
            if needed <= _FREE_SHARE * free and count < self.max_loaded:
                break
            gone.append(each)
            free += each.occupied or each.footprint(each.options or ())
            count -= 1
        return gone

    # --- inside ---------------------------------------------------------------------------------

    def _queue_load(self, line: Line, options: LoadOptions, now: float) -> Loading:
        for each in self._loads():
            if each.line is line and each.options == options:
                return each
        loading = Loading(line, options, now, owned=False)
        if self.loading is None:
            self.loading = loading
            self._make_room(loading, now)
        else:
            loading.alone = False
            self.pending.append(loading)
        return loading

    def _loads(self) -> Iterator[Loading]:
        if self.loading is not None:
            yield self.loading
        yield from self.pending

    def _make_room(self, loading: Loading, now: float) -> None:
        for victim in self.victims(loading.line, loading.options):
            if victim.flights and victim is not loading.line:
                loading.alone = False
                continue  # it has to finish first; what comes of that is seen, not foreseen
            self._unload(victim, now)

    def _now_resident(self, line: Line, options: LoadOptions | None, now: float) -> None:
        loading = self.loading
        if loading is not None and loading.line is line and not loading.owned:
            self.loading = None
        self.pending = deque(
            each for each in self.pending if each.line is not line or each.options != options
        )
        line.resident = True
        named = [each.keep_alive for each in line.flights if each.keep_alive is not None]
        line.keep_alive = named[-1] if named else KEEP_ALIVE
        self.residents[line.identity] = line
        line.options = options
        line.context = None
        line.occupied = 0.0
        line.expires_at = inf if line.flights else now + line.keep_alive
        self._quiet_until = min(self._quiet_until, line.expires_at)
        self.unloaded_at.pop(line.identity, None)
        self._next_load(now)

    def _next_load(self, now: float) -> None:
        if self.loading is None and self.pending:
            loading = self.pending.popleft()
            loading.began = now
            loading.warm = loading.line.warm(now)
            loading.ready_at = now + loading.line.rates.load_seconds(warm=loading.warm)
            self.loading = loading
            self._make_room(loading, now)

    def _give_up(self, line: Line) -> None:
        """Whoever caused a load has left. An owned load goes on."""
        if line.flights:
            return
        if self.loading is not None and self.loading.line is line and not self.loading.owned:
            self.loading = None
            self._next_load(line.used_at)
        else:
            self.pending = deque(each for each in self.pending if each.line is not line)

    def _unload(self, line: Line, now: float) -> None:
        line.resident = False
        self.residents.pop(line.identity, None)
        line.draining = False
        line.options = None
        line.context = None
        line.occupied = 0.0
        line.expires_at = inf
        since = now - WARM_SECONDS
        self.unloaded_at = {name: at for name, at in self.unloaded_at.items() if at > since}
        self.unloaded_at[line.identity] = now

    def forget_memory(self, now: float) -> None:
        """The node went away: nothing is in memory when it comes back."""
        self.loading = None
        self.pending.clear()
        if self.tells_residency:
            for line in [*self.residents.values()]:
                self._unload(line, now)

    def take_models(self, models: Mapping[str, Model]) -> None:
        """The node lists these models. A line whose model is gone stays while it is in use."""
        self.names.follow(models)
        largest = max([model.size or _SIZE_UNKNOWN for model in models.values()], default=0.0)
        self._largest = max(self._largest, float(largest))
        if not self.tells_residency:
            for line in self.lines.values():
                line.resident = True
        if self.lines:
            kept = {model.digest or name for name, model in models.items()}
            for identity in [*self.lines]:
                line = self.lines[identity]
                if identity not in kept and not line.flights and not line.waiting:
                    self.drop_line(line)

    def line_of(self, name: str, model: Model) -> Line:
        """The line of a model that the node lists under a canonical name, made when it is new."""
        identity = model.digest or name
        line = self.lines.get(identity)
        if line is None:
            habits = self._habits.get(identity)
            if habits is None:
                habits = self._habits[identity] = ModelHabits()
            size = float(model.size or _SIZE_UNKNOWN)
            line = self.lines[identity] = Line(self, identity, name, size, habits)
        line.embedding = line.embedding or model.embedding
        return line

    def drop_line(self, line: Line) -> None:
        """The endpoint no longer has the model."""
        del self.lines[line.identity]
        self.residents.pop(line.identity, None)
