"""The state of the fleet at one moment: frozen, and replaced as a whole.

Probing builds a new `Snapshot` after each change and swaps one reference; holders of an old one
keep a consistent view. Look-ups by model are indexed, so that a request never scans endpoints
without its model. The index holds names of endpoints and is shared from one snapshot to the next: a
change of an endpoint's health costs nothing per model.
"""

from collections.abc import Iterable, Mapping

import msgspec

from olla.fleet.breaker import BreakerState
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.fleet.profiles import Profile

__all__ = ["EMPTY", "EndpointView", "Model", "ResidentModel", "Snapshot", "resident_by_name"]


class Model(msgspec.Struct, frozen=True, gc=False):
    """A model on an endpoint's disk.

    `name` is the endpoint's own spelling, `digest` 64 hex digits without a prefix, `size` bytes.
    `created` is its last change in Unix seconds, 0 if unknown. `embedding`: it only makes
    embeddings. `entry` is the endpoint's list entry as JSON, for merged lists, or empty. Nothing in
    it can refer back to it, so the garbage collector skips it: tens of thousands of models cost 60
    ms per collection.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    created: float = 0.0
    embedding: bool = False
    entry: bytes = b""


class ResidentModel(msgspec.Struct, frozen=True, gc=False):
    """A loaded model on an endpoint.

    Sizes are bytes, `context_length` tokens per slot. `expires_at` is Unix seconds, None if
    unknown. `entry` is the endpoint's own `/api/ps` entry as JSON.
    """

    name: str
    digest: str | None = None
    size: int | None = None
    size_vram: int | None = None
    context_length: int | None = None
    expires_at: float | None = None
    entry: bytes = b""


class EndpointView(msgspec.Struct, frozen=True):
    """What is known about one endpoint.

    `models` and `resident` are keyed by canonical name. `resident` also contains every other name
    of the same digest, because Ollama lists a loaded model under the name that loaded it first.
    `profile` is None while the type is unknown. `retry_at` (monotonic seconds) is the end of a
    rate-limited endpoint's pause. `ramp` is the number of concurrent requests for a recovering
    endpoint, 0 for any. `position` is its place in the configuration. `models_at` is when its
    models were listed, `resident_at` when the probe was sent that `resident` answers (monotonic
    seconds), and `resident_wall` the same in Unix seconds. `models_cut`: it lists more models than
    olla reads.
    """

    spec: EndpointSpec
    position: int
    profile: Profile | None = None
    health: Health = Health.UNKNOWN
    breaker: BreakerState = BreakerState.CLOSED
    ramp: int = 0
    models: Mapping[str, Model] = msgspec.field(default_factory=dict)
    resident: Mapping[str, ResidentModel] = msgspec.field(default_factory=dict)
    version: str | None = None
    last_error: str | None = None
    retry_at: float | None = None
    checked_at: float | None = None
    next_check_at: float | None = None
    models_at: float | None = None
    resident_at: float | None = None
    resident_wall: float | None = None
    models_cut: bool = False

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.spec.name

    @property
    def routable(self) -> bool:
        """Whether its health allows requests. The breaker judges separately."""
        return self.health.routable


class Snapshot(msgspec.Struct, frozen=True):
    """The fleet at one moment. Build it with `Snapshot.of`.

    `holders` maps canonical model names to the names of endpoints that list the model, in
    configuration order.
    """

    endpoints: tuple[EndpointView, ...]
    by_name: Mapping[str, EndpointView]
    holders: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, endpoints: Iterable[EndpointView]) -> "Snapshot":
        """Index `endpoints` in their order."""
        views = tuple(endpoints)
        holders: dict[str, tuple[str, ...]] = {}
        for view in views:
            alone = (view.name,)
            for model in view.models:
                others = holders.get(model)
                holders[model] = alone if others is None else others + alone
        return cls(views, {view.name: view for view in views}, holders)

    def having(self, model: str) -> tuple[EndpointView, ...]:
        """Return the endpoints that list a model (canonical name), in configuration order."""
        by_name = self.by_name
        return tuple([by_name[name] for name in self.holders.get(model, ())])

    def replaced(self, view: EndpointView) -> "Snapshot":
        """Return this snapshot with `view` in place of the endpoint with its name."""
        old = self.by_name.get(view.name)
        if old is None:
            return self
        return Snapshot(
            tuple([view if each is old else each for each in self.endpoints]),
            {**self.by_name, view.name: view},
            self.holders if old.models is view.models else self._reindexed(old, view),
        )

    def _reindexed(self, old: EndpointView, view: EndpointView) -> Mapping[str, tuple[str, ...]]:
        """Return the index after a change of an endpoint's models. Only differences are updated."""
        gone, new = old.models.keys() - view.models.keys(), view.models.keys() - old.models.keys()
        if not gone and not new:
            return self.holders
        name = view.name
        order = {each.name: at for at, each in enumerate(self.endpoints)}
        holders = dict(self.holders)
        for model in gone:
            left = tuple([each for each in holders[model] if each != name])
            if left:
                holders[model] = left
            else:
                del holders[model]
        for model in new:
            others = holders.get(model)
            if others is None:
                holders[model] = (name,)
            elif order[others[-1]] < order[name]:
                holders[model] = (*others, name)
            else:
                holders[model] = tuple(sorted((*others, name), key=order.__getitem__))
        return holders


EMPTY = Snapshot.of(())
"""A fleet without endpoints."""


def resident_by_name(
    resident_models: Iterable[ResidentModel], models: Mapping[str, Model]
) -> dict[str, ResidentModel]:
    """Return loaded models by canonical name, under every name in `models` with the same digest."""
    found: dict[str, ResidentModel] = {}
    by_digest: dict[str, ResidentModel] = {}
    for resident_model in resident_models:
        found[canonical(resident_model.name)] = resident_model
        if resident_model.digest:
            by_digest[resident_model.digest] = resident_model
    for name, model in models.items():
        if model.digest in by_digest:
            found.setdefault(name, by_digest[model.digest])
    return found
