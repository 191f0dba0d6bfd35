"""The twins of all endpoints, and the instances of each model.

They follow the snapshot. They also count requests in flight, because olla's own bookkeeping is the
only one: Ollama reports neither its queue nor its busy slots.
"""

from collections.abc import Callable, Iterator, Sequence

from olla.fleet.estimates import EndpointRates, FleetRates, ModelHabits
from olla.fleet.instance import ModelInstance
from olla.fleet.snapshot import EMPTY, EndpointView, Snapshot
from olla.fleet.twin import Twin

__all__ = ["Twins"]

_ORDER_INTERVAL = 1.0
"""Seconds between two sorts of a model's instances: rates change slowly."""
_ARRIVALS_MIN = 0.001
"""Requests per second of a recently requested model: one in about six minutes."""


class Twins:
    """One twin per endpoint, with an index of instances by model."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = EMPTY
        self.by_name: dict[str, Twin] = {}
        self.rates = FleetRates()
        self.faults: dict[str, Exception] = {}
        """Endpoints with invalid data, and the error. They get no requests for models until their
        data is valid."""
        self._habits: dict[str, ModelHabits] = {}
        self._instances: dict[str, tuple[ModelInstance, ...]] = {}
        """Instances by model, as far as they were looked up."""
        self._ordered: dict[str, tuple[float, list[ModelInstance]]] = {}
        self._tiers: dict[int, int] = {}
        self.tiered = False
        """Whether endpoints have different priorities."""

    # --- updates --------------------------------------------------------------------------------

    def follow(self, snapshot: Snapshot, now: float) -> list[Twin]:
        """Take over a new snapshot, and return the changed twins.

        An endpoint with invalid data is recorded in `faults` and has no models until its data is
        valid. The others are not affected.
        """
        before = self.snapshot
        self.snapshot = snapshot
        changed: list[Twin] = []
        index_stale = before.by_name.keys() != snapshot.by_name.keys()
        for view in snapshot.endpoints:
            name = view.spec.name
            old = before.by_name.get(name)
            if old is view:
                continue
            twin = self.by_name.get(name)
            if twin is None or (old is not None and old.spec != view.spec):
                twin = self._renewed(twin, view)
                old = None
            elif name in self.faults:
                old = None
            changed.append(twin)
            try:
                self._take(twin, old, view, now)
                self.faults.pop(name, None)
            except Exception as error:
                self.faults[name] = error
                twin.take_models({})
                twin.forget_memory(now)
                index_stale = True
            if old is None or old.models is not view.models or old.profile is not view.profile:
                index_stale = True
        if index_stale:
            self._index(snapshot, now)
        return changed

    def _renewed(self, old: Twin | None, view: EndpointView) -> Twin:
        """Create a twin for an endpoint that is new or has new settings. Requests in flight
        continue to count on the old twin, to which their leases refer."""
        bandwidth = view.spec.load_bandwidth
        if old is not None:
            rates = old.rates
            rates.bandwidth = bandwidth
        else:
            rates = EndpointRates(self.rates, bandwidth)
        twin = Twin(view, rates, self._habits)
        self.by_name[view.spec.name] = twin
        return twin

    def _take(self, twin: Twin, old: EndpointView | None, view: EndpointView, now: float) -> None:
        twin.set_view(view)
        if old is None or old.models is not view.models or old.profile is not view.profile:
            twin.take_models(view.models)
        if not twin.tells_residency:
            return
        if not view.health.routable:
            if old is None or old.health.routable:
                twin.forget_memory(now)
        elif view.resident_at is not None and (
            old is None or old.resident_at != view.resident_at or not old.health.routable
        ):
            twin.saw(view, view.resident_at, now)

    def _index(self, snapshot: Snapshot, now: float) -> None:
        for name in self.by_name.keys() - snapshot.by_name.keys():
            del self.by_name[name]
            self.faults.pop(name, None)
        # Prewarming looks at recently requested models. Others are updated when they are requested
        # again.
        lately = [
            model
            for model, instances in self._instances.items()
            if instances[0].habits.arrivals.rate(now) >= _ARRIVALS_MIN
        ]
        self._instances = {}
        for model in lately:
            self.instances(model)
        self._ordered = {}
        used = {
            instance.identity
            for twin in self.by_name.values()
            for instance in twin.instances.values()
        }
        for identity in self._habits.keys() - used:
            del self._habits[identity]
        ranks = sorted({view.spec.priority for view in snapshot.endpoints}, reverse=True)
        self._tiers = {priority: at for at, priority in enumerate(ranks)}
        self.tiered = len(ranks) > 1

    # --- look-ups -------------------------------------------------------------------------------

    def instances(self, model: str) -> Sequence[ModelInstance]:
        """Return the instances of a model (canonical name), in configuration order."""
        instances = self._instances.get(model)
        return self._find_instances(model) if instances is None else instances

    def _find_instances(self, model: str) -> Sequence[ModelInstance]:
        found: list[ModelInstance] = []
        for name in self.snapshot.holders.get(model, ()):
            instance = self.by_name[name].names.get(model)
            if instance is not None:  # otherwise its endpoint's data is invalid
                found.append(instance)
        if not found:
            return ()
        instances = self._instances[model] = tuple(found)
        return instances

    def by_speed(self, model: str, now: float) -> Sequence[ModelInstance]:
        """Return the same, the fastest prompt readers first, as of at most a second ago."""
        ordered = self._ordered.get(model)
        if ordered is None or now - ordered[0] >= _ORDER_INTERVAL:
            instances = sorted(self.instances(model), key=lambda instance: instance.rates.prefill)
            ordered = self._ordered[model] = (now, instances)
        return ordered[1]

    def models(self) -> Iterator[Sequence[ModelInstance]]:
        """Yield the instances of each recently requested model, once per name."""
        return iter([*self._instances.values()])

    def tier(self, view: EndpointView) -> int:
        """Return 0 for the highest priority in the fleet, 1 for the next, and so on."""
        return self._tiers.get(view.spec.priority, 0)

    def habits(self, model: str) -> ModelHabits | None:
        """Return the properties of requests for a model; None if no endpoint has it."""
        instances = self._instances.get(model) or self.instances(model)
        return instances[0].habits if instances else None

    def copies(self, instance: ModelInstance) -> int:
        """Return how many other endpoints have the model loaded in the same way."""
        return sum(
            each.resident
            and each is not instance
            and each.options == instance.options
            and each.twin.view.health.routable
            for each in self.instances(instance.model)
        )

    def on(self, endpoint: str) -> int:
        """Return the inference requests in flight at an endpoint."""
        twin = self.by_name.get(endpoint)
        return twin.in_flight if twin is not None else 0

    def on_model(self, endpoint: str, model: str) -> int:
        """Return the inference requests in flight at an endpoint for a model (canonical name)."""
        twin = self.by_name.get(endpoint)
        instance = twin.names.get(model) if twin is not None else None
        return len(instance.in_flight) if instance is not None else 0

    def on_models(self, endpoint: str, wanted: Callable[[str], bool]) -> int:
        """Return the inference requests in flight at an endpoint for some models (canonical
        names)."""
        twin = self.by_name.get(endpoint)
        instances = twin.instances.values() if twin is not None else ()
        return sum(
            len(each.in_flight) for each in instances if each.in_flight and wanted(each.model)
        )

    def total(self) -> int:
        """Return the inference requests in flight in the fleet."""
        return sum(twin.in_flight for twin in self.by_name.values())
