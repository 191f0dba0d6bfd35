"""A model on an endpoint: whether it is loaded, its slots, and its requests in flight.

`twin` covers the node as a whole: memory, evictions, loads. Times are monotonic seconds, sizes
bytes.
"""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

from olla.fleet.estimates import InstanceRates, ModelHabits
from olla.fleet.slots import Slots

if TYPE_CHECKING:
    from olla.fleet.twin import Twin

__all__ = [
    "KEEP_ALIVE",
    "OVERHEAD",
    "WARM_SECONDS",
    "InFlightRequest",
    "LoadOptions",
    "ModelInstance",
    "ModelLoad",
    "WaitingRequest",
]

LoadOptions = tuple[tuple[str, float], ...]
"""The load options of a request: sorted, without those that have no effect."""

KEEP_ALIVE = 300.0
"""Seconds: Ollama's default `OLLAMA_KEEP_ALIVE`."""
WARM_SECONDS = 900.0
"""Seconds for which a model's file is assumed to stay in the page cache after an unload."""
OVERHEAD = 1.15
"""Memory of a loaded model per byte on disk, until it has been seen loaded."""
_HANGING = 5.0
"""Multiple of the expected time."""
_REFUSALS = 3
_REFUSED_MAX = 30.0
"""Seconds."""
_OVERDUE_SHARE = 0.2
"""Share of the expected time: the assumed rest of something overdue."""


class WaitingRequest(Protocol):
    """A request that waits in olla for a model instance: `order` is its place in the queue (lower
    first), `work` its expected service time in seconds."""

    order: float
    work: float


class InFlightRequest:
    """A request that was sent to an endpoint.

    `expected` is its service time in seconds, from slot to last byte. `began` is when its first
    byte came.
    """

    __slots__ = (
        "at",
        "began",
        "crowd",
        "expected",
        "finished",
        "instance",
        "keep_alive",
        "options",
    )

    def __init__(
        self,
        instance: "ModelInstance | None",
        at: float,
        expected: float,
        options: LoadOptions = (),
        keep_alive: float | None = None,
    ) -> None:
        self.instance = instance
        self.at = at
        self.expected = expected
        self.options = options
        self.keep_alive = keep_alive
        self.began: float | None = None
        self.crowd = 0
        """Requests in flight at its instance before it."""
        self.finished = 0
        """Requests finished at its instance before it was sent."""

    def left(self, now: float) -> float:
        """Return the expected seconds until it ends. An overdue request has some time left: lengths
        of responses are spread about as widely as exponential ones, which have no memory. A long
        overdue one is assumed to need as long again as it took: it may hang, and requests behind it
        must account for that."""
        past = now - (self.at if self.began is None else self.began)
        left = max(self.expected - past, self.expected * _OVERDUE_SHARE)
        return max(left, past - _HANGING * self.expected)


class ModelInstance:
    """A model on an endpoint: whether it is loaded, its slots, and its requests in flight.

    `waiting` are the requests that wait in olla for it, in order. Only `admission.queue` writes
    them.
    """

    __slots__ = (
        "context",
        "draining",
        "embedding",
        "expires_at",
        "finished",
        "footprints",
        "habits",
        "identity",
        "in_flight",
        "keep_alive",
        "model",
        "moved_at",
        "occupied",
        "options",
        "ownable",
        "rates",
        "refusals",
        "refused_until",
        "resident",
        "size",
        "slots",
        "twin",
        "used_at",
        "waiting",
    )

    def __init__(
        self, twin: "Twin", identity: str, model: str, size: float, habits: ModelHabits
    ) -> None:
        self.twin = twin
        self.identity = identity
        self.model = model
        self.size = size
        self.habits = habits
        self.rates = InstanceRates(twin.rates, size)
        self.slots: Slots = twin.new_slots()
        self.resident = not twin.tells_residency
        self.options: LoadOptions | None = None
        """Its load options; None if another client loaded it."""
        self.context: int | None = None
        self.occupied = 0.0
        """Bytes of memory that it occupies, if known."""
        self.footprints: dict[LoadOptions, float] = {}
        self.keep_alive = KEEP_ALIVE
        self.expires_at = inf
        self.used_at = -inf
        self.moved_at = -inf
        """When a response last began or ended there."""
        self.embedding = False
        self.in_flight: dict[InFlightRequest, None] = {}
        self.finished = 0
        self.waiting: Sequence[WaitingRequest] = ()
        self.draining = False
        """It is to be evicted, and gets no new requests."""
        self.refusals = 0
        """Consecutive requests for it that the endpoint rejected."""
        self.refused_until = -inf
        """The time until which it gets no requests for that reason."""
        self.ownable = True
        """Whether olla can load it by a request of its own making."""

    def fits(self, options: LoadOptions) -> bool:
        """Whether a request with these options can use the loaded model as it is.

        All options must be the same, including an omitted `num_ctx`. Only an omitted `num_gpu`
        accepts any value. Of models that other clients loaded only the context is known.
        """
        loaded = self.options
        if loaded == options or not self.twin.tells_residency:
            return True
        if loaded is None:
            if not options:
                return True
            wanted = next((value for name, value in options if name == "num_ctx"), None)
            return wanted is None or wanted == self.context
        if any(name == "num_gpu" for name, _ in options):
            return False
        return tuple(each for each in loaded if each[0] != "num_gpu") == options

    def ready(self, options: LoadOptions, now: float) -> bool:
        """Whether it is loaded as the request needs it."""
        if not self.resident or (self.expires_at <= now and not self.in_flight):
            return False
        return self.fits(options)

    def refuse(self, now: float, retry_after: float | None) -> None:
        """Record that the endpoint rejected a request for it: a limit, a key, a missing model.
        After a few in a row, or if the endpoint names a time, it gets no requests for a while,
        longer each time."""
        self.refusals += 1
        if retry_after is not None:
            self.refused_until = now + min(retry_after, _REFUSED_MAX)
        elif self.refusals >= _REFUSALS:
            seconds = 2.0 ** min(self.refusals - _REFUSALS, 10)
            self.refused_until = now + min(seconds, _REFUSED_MAX)

    def footprint(self, options: LoadOptions) -> float:
        """Return the bytes of memory that it needs with these options."""
        known = self.footprints.get(options)
        if known is None:
            known = max(self.footprints.values(), default=self.size * OVERHEAD)
        return known

    def service(self, prompt_tokens: float, output_max: float = inf) -> float:
        """Return the expected seconds from slot to last byte."""
        rates = self.rates
        if rates.stale:
            rates.refresh()
        output = self.habits.output_tokens
        if self.embedding:
            output = 0.0
        elif output_max < output:
            output = output_max
        return prompt_tokens * rates.prefill + output * rates.decode

    def warm(self, now: float) -> bool:
        """Whether its file is likely to be in the page cache."""
        unloaded = self.twin.unloaded_at.get(self.identity)
        return self.resident or (unloaded is not None and now - unloaded < WARM_SECONDS)

    def load_seconds(self, now: float) -> float:
        """Expected seconds of loading it, once that begins."""
        return self.rates.load_seconds(warm=self.warm(now))


class ModelLoad:
    """A load under way, or one that waits for its turn on the node.

    `owned` when a request of olla's own carries it; `alone` when nothing of ours was in its way,
    so that how long it takes can be learned from.
    """

    __slots__ = ("alone", "began", "instance", "options", "owned", "ready_at", "warm")

    def __init__(
        self, instance: ModelInstance, options: LoadOptions, began: float, *, owned: bool
    ) -> None:
        self.instance = instance
        self.options = options
        self.began = began
        self.owned = owned
        self.alone = True
        self.warm = instance.warm(began)
        self.ready_at = began + instance.rates.load_seconds(warm=self.warm)

    def left(self, now: float) -> float:
        """Expected seconds until it is done; an overdue one still takes a while."""
        return max(self.ready_at - now, (now - self.began) * _OVERDUE_SHARE)
