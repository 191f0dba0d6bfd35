"""Model a node: what olla assumes about it between two probes.

A twin is advanced by the requests that olla sends and sees end, corrected by probes, and tolerant
of other clients of the node. It follows Ollama's scheduler: slots per loaded model, one load at a
time, limits by memory and count, eviction of idle models first, then by keep-alive, then by name.
It is mutable and owned by the dispatcher; routing reads it. Times are monotonic seconds, sizes
bytes.
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
    InFlightRequest,
    LoadOptions,
    ModelInstance,
    ModelLoad,
)
from olla.fleet.slots import Slots
from olla.fleet.snapshot import EndpointView, Model, ResidentModel

__all__ = ["Names", "Twin"]

_EXPIRY_MIN = 10.0
"""Seconds for which a reported model is assumed to stay, whatever the node's clock says."""
_FREE_SHARE = 0.8
"""A model must fit into this share of the free memory, or others are evicted."""
_MAX_LOADED = 3
"""Ollama's default `OLLAMA_MAX_LOADED_MODELS`, per graphics card."""
_SIZE_UNKNOWN = 4.0e9
_NO_MODELS: Mapping[str, Model] = {}


class Names:
    """The model instances of a twin by canonical model name. Several names may lead to one.

    An instance is created at its first look-up: a node may list ten thousand models, of which few
    are ever requested, and creating all took 0.1 s.
    """

    __slots__ = ("_made", "_models", "_twin")

    def __init__(self, twin: "Twin") -> None:
        self._twin = twin
        self._models = _NO_MODELS
        self._made: dict[str, ModelInstance] = {}

    def __contains__(self, model: str) -> bool:
        return model in self._models

    def __getitem__(self, model: str) -> ModelInstance:
        """Return the instance of a model. Raises KeyError if the node does not list it."""
        instance = self._made.get(model)
        if instance is None:
            instance = self._made[model] = self._twin.instance_of(model, self._models[model])
        return instance

    def get(self, model: str) -> ModelInstance | None:
        """Return the instance of a model; None if the node does not list it."""
        return self[model] if model in self._models else None

    def values(self) -> list[ModelInstance]:
        """The instances that were looked up so far."""
        return [*self._made.values()]

    def first(self, most: int) -> list[tuple[str, ModelInstance]]:
        """Return some names with their instances, those looked up before first."""
        names = [*self._made]
        names += [each for each in islice(self._models, most) if each not in self._made]
        return [(name, self[name]) for name in names[:most]]

    def follow(self, models: Mapping[str, Model]) -> None:
        """Replace the node's list of models."""
        self._models = models
        self._made = {name: instance for name, instance in self._made.items() if name in models}
        for name in [*self._made]:
            model, instance = models[name], self._made[name]
            if (model.digest or name) != instance.identity:
                del self._made[name]  # another model has this name now
            else:
                instance.embedding = instance.embedding or model.embedding


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
        self.stuck: set[ModelInstance] = set()
        """Instances without progress although the endpoint is healthy."""
        self.refusing: set[ModelInstance] = set()
        """Instances for which the endpoint recently rejected requests."""
        self.set_view(view)
        self.instances: dict[str, ModelInstance] = {}
        """Instances by identity, as far as they were looked up."""
        self.names = Names(self)
        """Instances by canonical model name."""
        self.in_flight = 0
        self.on_trial = False
        self.loading: ModelLoad | None = None
        self.pending: deque[ModelLoad] = deque()
        """Loads caused by sent requests that wait for the current load."""
        self.wanted: dict[ModelInstance, float] = {}
        """Loads for requests queued in olla that have not begun, with their seconds."""
        self.unloaded_at: dict[str, float] = {}
        self.residents: dict[str, ModelInstance] = {}
        """Instances with a loaded model, by identity; only if that can be known."""
        self._quiet_until = -inf
        """No loaded model expires before."""
        self._capacity = inf
        self._total = 0.0
        self._largest = 0.0
        self._most = 0

    def set_view(self, view: EndpointView) -> None:
        """Take over a view of the endpoint. Values that every decision needs are stored here."""
        profile = view.profile
        self.view = view
        self.name = view.spec.name
        self.kind = profile.name if profile is not None else ""
        """The kind of server; empty while unknown."""
        self.tells_residency = profile is not None and profile.tells_residency
        """Whether its loaded models can be known."""
        self.dialects: frozenset[str] = profile.dialects if profile is not None else frozenset()
        self.translatable = self.dialects if view.spec.translates else frozenset()
        """The dialects that requests may be translated to for it."""
        self.clear = (
            profile is not None
            and view.health.routable
            and view.breaker is BreakerState.CLOSED
            and not view.ramp
            and not self.stuck
            and not self.refusing
        )
        """Whether the endpoint's own state allows requests."""

    def new_slots(self) -> Slots:
        """Return slots for a new instance."""
        return Slots(self.view.spec.num_parallel, first=1 if self.tells_residency else 8)

    # --- events of olla -------------------------------------------------------------------------

    def sent(self, flight: InFlightRequest, now: float) -> None:
        """Record a sent request, which may cause a load.

        This, `began` and `ended` run for every request.
        """
        self.pass_time(now)
        self.in_flight += 1
        instance = flight.instance
        if instance is None:
            return
        instance.habits.arrivals.add(now)
        instance.used_at = now
        flight.crowd = len(instance.in_flight)
        flight.finished = instance.finished
        instance.in_flight[flight] = None
        if flight.keep_alive is not None:
            instance.keep_alive = flight.keep_alive
        if not instance.ready(flight.options, now) and self.tells_residency:
            self._queue_load(instance, flight.options, now)
        else:
            instance.expires_at = inf

    def began(self, flight: InFlightRequest, now: float) -> None:
        """Record the first byte of a response: its model is loaded, whatever was assumed."""
        self.pass_time(now)
        flight.began = now
        instance = flight.instance
        if instance is not None:
            instance.moved_at = now
            if instance in self.stuck or instance in self.refusing:
                instance.refusals = 0
                self.refusing.discard(instance)
                self.set_stuck(instance, stuck=False)
        if instance is None or not self.tells_residency:
            return
        if not instance.ready(flight.options, now):
            self._now_resident(instance, flight.options, now)

    def ended(self, flight: InFlightRequest, now: float) -> None:
        """Record the end of a request. A load that only it waited for is cancelled."""
        self.pass_time(now)
        self.in_flight -= 1
        instance = flight.instance
        if instance is None:
            return
        instance.in_flight.pop(flight, None)
        if flight.began is not None:
            instance.moved_at = now
        instance.finished += 1
        instance.used_at = now
        if flight.began is None:
            self._give_up(instance)
        if not instance.in_flight and instance.resident and self.tells_residency:
            instance.expires_at = now + instance.keep_alive
            self._quiet_until = min(self._quiet_until, instance.expires_at)
            if instance.keep_alive <= 0:
                self._unload(instance, now)

    def start_load(self, instance: ModelInstance, options: LoadOptions, now: float) -> ModelLoad:
        """Record that a request of olla's own begins to load a model."""
        self.pass_time(now)
        loading = self._queue_load(instance, options, now)
        loading.owned = True
        return loading

    def load_ended(self, loading: ModelLoad, now: float, *, loaded: bool) -> None:
        """Record the end of such a load, and learn its time if it succeeded."""
        if self.loading is loading:
            self.loading = None
        elif loading in self.pending:
            self.pending.remove(loading)
        if loaded:
            if loading.alone and now > loading.began:
                loading.instance.rates.loaded(now - loading.began, warm=loading.warm)
            self._now_resident(loading.instance, loading.options, now)
        self._next_load(now)

    def pass_time(self, now: float) -> None:
        """Apply expected events up to now: loads end, models expire."""
        while self.loading is not None and not self.loading.owned and self.loading.ready_at <= now:
            done = self.loading
            self._now_resident(done.instance, done.options, done.ready_at)
        if now < self._quiet_until:
            return  # nearly always; this runs three times per request
        for instance in [*self.residents.values()]:
            if instance.expires_at <= now and not instance.in_flight:
                self._unload(instance, instance.expires_at)
        self._quiet_until = min(
            (instance.expires_at for instance in self.residents.values() if not instance.in_flight),
            default=inf,
        )

    def set_stuck(self, instance: ModelInstance, *, stuck: bool) -> None:
        """Mark an instance as stuck, or as working again."""
        if stuck:
            self.stuck.add(instance)
        else:
            self.stuck.discard(instance)
        self.set_view(self.view)

    def refused(self, instance: ModelInstance, now: float, retry_after: float | None) -> None:
        """Record that the endpoint rejected a request for a model, see `ModelInstance.refuse`."""
        instance.refuse(now, retry_after)
        self.refusing.add(instance)
        self.set_view(self.view)

    # --- results of probes ----------------------------------------------------------------------

    def saw(self, view: EndpointView, asked_at: float, now: float) -> None:
        """Take over the loaded models that a probe reported as of `asked_at`. Later events of olla
        take precedence, and a load in progress is not reported."""
        self.pass_time(now)
        told: dict[str, ResidentModel] = {}
        for name, resident_model in view.resident.items():
            instance = self.names.get(name)
            if instance is not None:
                told[instance.identity] = resident_model
        for identity, resident_model in told.items():
            self._is_there(self.instances[identity], resident_model, asked_at, view.resident_wall)
        gone = [
            instance
            for instance in self.residents.values()
            if instance.identity not in told
            and not instance.in_flight
            and instance.used_at < asked_at
        ]
        early = [instance for instance in gone if instance.expires_at > asked_at]
        for instance in gone:
            self._unload(instance, asked_at)
        self._learn_room(told, sum(instance.footprint(()) for instance in early))

    def _is_there(
        self,
        instance: ModelInstance,
        resident_model: ResidentModel,
        asked_at: float,
        wall: float | None,
    ) -> None:
        if not instance.resident:
            if self.unloaded_at.get(instance.identity, -inf) > asked_at:
                return  # it was loaded when the probe was sent, and has been unloaded since
            self._now_resident(instance, None, asked_at)
        elif (
            instance.context is not None
            and resident_model.context_length != instance.context
            and instance.used_at < asked_at
        ):
            instance.options = None  # another client has reloaded it with other options
        instance.context = resident_model.context_length
        if not instance.in_flight and instance.used_at < asked_at:
            self._learn_expiry(instance, resident_model, asked_at, wall)
        if resident_model.size:
            instance.occupied = float(resident_model.size_vram or resident_model.size)
            if instance.options is not None:
                instance.footprints[instance.options] = float(resident_model.size)
            elif not instance.footprints:
                instance.footprints[()] = float(resident_model.size)

    def _learn_expiry(
        self,
        instance: ModelInstance,
        resident_model: ResidentModel,
        asked_at: float,
        wall: float | None,
    ) -> None:
        """Learn when an idle model expires: its last user's keep-alive decides."""
        self._quiet_until = -inf
        instance.expires_at = asked_at + instance.keep_alive
        if resident_model.expires_at is not None and wall is not None:
            left = resident_model.expires_at - wall
            instance.expires_at = asked_at + max(left, _EXPIRY_MIN)
            if left > 0:
                idle = asked_at - instance.used_at if instance.used_at > -inf else 0.0
                instance.keep_alive = left + idle

    def _learn_room(self, told: dict[str, ResidentModel], displaced: float) -> None:
        """`displaced` are the bytes of models that were unloaded early."""
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

    # --- memory and evictions -------------------------------------------------------------------

    @property
    def capacity(self) -> float:
        """Return the bytes of memory for models: configured, else learned.

        At least what was seen loaded together. Until something was seen not to fit, no more than
        the largest model on disk needs, because its owner can use it.
        """
        told = self.view.spec.vram
        if told is not None:
            return float(told)
        if self._capacity < inf:
            return self._capacity
        return max(self._total, self._largest * OVERHEAD / _FREE_SHARE)

    @property
    def max_loaded(self) -> int:
        """Return how many models may be loaded: configured, else the server's default or the most
        seen."""
        return self.view.spec.max_loaded_models or max(_MAX_LOADED, self._most)

    def victims(self, instance: ModelInstance, options: LoadOptions) -> list[ModelInstance]:
        """Return the models to evict, in order, before the model can be loaded with these
        options."""
        gone = [instance] if instance.resident else []
        there = [each for each in self.residents.values() if each is not instance]
        there.sort(key=lambda each: (bool(each.in_flight), each.keep_alive, each.model))
        needed = instance.footprint(options)
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

    def _queue_load(self, instance: ModelInstance, options: LoadOptions, now: float) -> ModelLoad:
        for each in self._loads():
            if each.instance is instance and each.options == options:
                return each
        loading = ModelLoad(instance, options, now, owned=False)
        if self.loading is None:
            self.loading = loading
            self._make_room(loading, now)
        else:
            loading.alone = False
            self.pending.append(loading)
        return loading

    def _loads(self) -> Iterator[ModelLoad]:
        if self.loading is not None:
            yield self.loading
        yield from self.pending

    def _make_room(self, loading: ModelLoad, now: float) -> None:
        for victim in self.victims(loading.instance, loading.options):
            if victim.in_flight and victim is not loading.instance:
                loading.alone = False
                continue  # it must finish first; its effect is observed, not predicted
            self._unload(victim, now)

    def _now_resident(
        self, instance: ModelInstance, options: LoadOptions | None, now: float
    ) -> None:
        loading = self.loading
        if loading is not None and loading.instance is instance and not loading.owned:
            self.loading = None
        self.pending = deque(
            each
            for each in self.pending
            if each.instance is not instance or each.options != options
        )
        instance.resident = True
        named = [each.keep_alive for each in instance.in_flight if each.keep_alive is not None]
        instance.keep_alive = named[-1] if named else KEEP_ALIVE
        self.residents[instance.identity] = instance
        instance.options = options
        instance.context = None
        instance.occupied = 0.0
        instance.expires_at = inf if instance.in_flight else now + instance.keep_alive
        self._quiet_until = min(self._quiet_until, instance.expires_at)
        self.unloaded_at.pop(instance.identity, None)
        self._next_load(now)

    def _next_load(self, now: float) -> None:
        if self.loading is None and self.pending:
            loading = self.pending.popleft()
            loading.began = now
            loading.warm = loading.instance.warm(now)
            loading.ready_at = now + loading.instance.rates.load_seconds(warm=loading.warm)
            self.loading = loading
            self._make_room(loading, now)

    def _give_up(self, instance: ModelInstance) -> None:
        """Cancel a load whose request has gone. A load of olla's own continues."""
        if instance.in_flight:
            return
        if (
            self.loading is not None
            and self.loading.instance is instance
            and not self.loading.owned
        ):
            self.loading = None
            self._next_load(instance.used_at)
        else:
            self.pending = deque(each for each in self.pending if each.instance is not instance)

    def _unload(self, instance: ModelInstance, now: float) -> None:
        instance.resident = False
        self.residents.pop(instance.identity, None)
        instance.draining = False
        instance.options = None
        instance.context = None
        instance.occupied = 0.0
        instance.expires_at = inf
        since = now - WARM_SECONDS
        self.unloaded_at = {name: at for name, at in self.unloaded_at.items() if at > since}
        self.unloaded_at[instance.identity] = now

    def forget_memory(self, now: float) -> None:
        """Record that the node went down: nothing is loaded when it comes back."""
        self.loading = None
        self.pending.clear()
        if self.tells_residency:
            for instance in [*self.residents.values()]:
                self._unload(instance, now)

    def take_models(self, models: Mapping[str, Model]) -> None:
        """Replace the node's list of models. An instance of a removed model stays while in use."""
        self.names.follow(models)
        largest = max([model.size or _SIZE_UNKNOWN for model in models.values()], default=0.0)
        self._largest = max(self._largest, float(largest))
        if not self.tells_residency:
            for instance in self.instances.values():
                instance.resident = True
        if self.instances:
            kept = {model.digest or name for name, model in models.items()}
            for identity in [*self.instances]:
                instance = self.instances[identity]
                if identity not in kept and not instance.in_flight and not instance.waiting:
                    self.drop_instance(instance)

    def instance_of(self, name: str, model: Model) -> ModelInstance:
        """Return the instance of a model under a canonical name, created if new."""
        identity = model.digest or name
        instance = self.instances.get(identity)
        if instance is None:
            habits = self._habits.get(identity)
            if habits is None:
                habits = self._habits[identity] = ModelHabits()
            size = float(model.size or _SIZE_UNKNOWN)
            instance = self.instances[identity] = ModelInstance(self, identity, name, size, habits)
        instance.embedding = instance.embedding or model.embedding
        return instance

    def drop_instance(self, instance: ModelInstance) -> None:
        """Remove an instance: the endpoint no longer has the model."""
        del self.instances[instance.identity]
        self.residents.pop(instance.identity, None)
