"""What is known of the fleet at one moment: frozen, and replaced as a whole.

Probing builds a new `Snapshot` when something changed and swaps one reference; whoever holds an
old one goes on with a consistent picture. Lookups by model are indexed here, once per change,
so that a request never scans endpoints that do not have its model.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from olla.fleet.breaker import BreakerState
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.names import canonical
from olla.fleet.profiles import Profile

__all__ = ["EMPTY", "EndpointView", "Instance", "Model", "Snapshot", "resident_by_name"]


class Model(msgspec.Struct, frozen=True):
    """A model an endpoint has on disk.

    `name` is the endpoint's own spelling, `digest` 64 hex digits without a prefix, `size` bytes;
    `entry` is the endpoint's list entry as it was read, for merged lists.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    entry: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Instance(msgspec.Struct, frozen=True):
    """A model in an endpoint's memory, under given load options.

    Sizes are bytes, `context_length` tokens per slot; `expires_at` is Unix seconds, None when
    not told. `entry` is the endpoint's own `/api/ps` entry.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    size_vram: int | None = None
    context_length: int | None = None
    expires_at: float | None = None
    entry: Mapping[str, Any] = msgspec.field(default_factory=dict)


class EndpointView(msgspec.Struct, frozen=True):
    """What is known of one endpoint.

    `models` and `resident` are keyed by canonical name; `resident` also holds every other name
    of the same digest, because Ollama lists an instance under the name that loaded it first.
    `profile` is None while the type is still unknown. `retry_at` (monotonic seconds) says when a
    rate-limited endpoint wants to be asked again. `ramp` is how many requests at a time one that
    comes back may take, 0 for any number. `position` is its place in the configuration.
    `models_at` is when its models were told, `resident_at` when the question was put to which
    `resident` is the answer (monotonic seconds), `resident_wall` the same as Unix seconds.
    """

    spec: EndpointSpec
    position: int
    profile: Profile | None = None
    health: Health = Health.UNKNOWN
    breaker: BreakerState = BreakerState.CLOSED
    ramp: int = 0
    models: Mapping[str, Model] = msgspec.field(default_factory=dict)
    resident: Mapping[str, Instance] = msgspec.field(default_factory=dict)
    version: str | None = None
    last_error: str | None = None
    retry_at: float | None = None
    checked_at: float | None = None
    next_check_at: float | None = None
    models_at: float | None = None
    resident_at: float | None = None
    resident_wall: float | None = None

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.spec.name

    @property
    def routable(self) -> bool:
        """Whether its health lets it take requests (what traffic says is the breaker's)."""
        return self.health.routable


class Snapshot(msgspec.Struct, frozen=True):
    """The fleet at one moment. Build with `Snapshot.of`."""

    endpoints: tuple[EndpointView, ...]
    by_name: Mapping[str, EndpointView]
    by_model: Mapping[str, tuple[EndpointView, ...]]

    @classmethod
    def of(cls, endpoints: Iterable[EndpointView]) -> "Snapshot":
        """Index `endpoints`, keeping their order."""
        views = tuple(endpoints)
        by_model: dict[str, list[EndpointView]] = {}
        for view in views:
            for name in view.models:
                by_model.setdefault(name, []).append(view)
        return cls(
            endpoints=views,
            by_name={view.name: view for view in views},
            by_model={name: tuple(having) for name, having in by_model.items()},
        )

    def replaced(self, view: EndpointView) -> "Snapshot":
        """This snapshot with `view` in the place of the endpoint of the same name."""
        views = tuple(view if each.name == view.name else each for each in self.endpoints)
        old = self.by_name.get(view.name)
        if old is not None and old.models.keys() == view.models.keys():
            return self._same_models(views, view)
        return Snapshot.of(views)

    def _same_models(self, views: tuple[EndpointView, ...], view: EndpointView) -> "Snapshot":
        by_model = dict(self.by_model)
        for name in view.models:
            by_model[name] = tuple(
                view if each.name == view.name else each for each in by_model[name]
            )
        return Snapshot(views, {**self.by_name, view.name: view}, by_model)


EMPTY = Snapshot.of(())
"""A fleet of nobody."""


def resident_by_name(
    instances: Iterable[Instance], models: Mapping[str, Model]
) -> dict[str, Instance]:
    """Instances keyed by canonical name, under every name in `models` that shares the digest."""
    found: dict[str, Instance] = {}
    by_digest: dict[str, Instance] = {}
    for instance in instances:
        found[canonical(instance.name)] = instance
        if instance.digest:
            by_digest[instance.digest] = instance
    for name, model in models.items():
        if model.digest in by_digest:
            found.setdefault(name, by_digest[model.digest])
    return found
