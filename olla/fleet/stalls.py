"""Find models that make no progress although their endpoint is healthy.

A runner can hang while its server answers every probe: requests go in and nothing comes out. Only
requests reveal that, and only by comparison: a long prompt takes time, and a tool call may make a
whole response silent. A model instance is suspect if its requests are long overdue, nothing has
come from it in that time, and something has come from another model on the endpoint or from the
model elsewhere.

Pure: a request for one token confirms a suspicion. Times are monotonic seconds.
"""

from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from olla.fleet.instance import ModelInstance
from olla.fleet.twins import Twins

__all__ = ["Patience", "Progress", "suspects"]


class Patience(msgspec.Struct, frozen=True):
    """How long an instance may be silent: `least` seconds, and `times` the expected time."""

    least: float = 30.0
    times: float = 4.0


class Progress(msgspec.Struct, frozen=True):
    """The progress of a request at an endpoint: its instance, when it was sent, and when a byte of
    its response last came (None before the first)."""

    instance: ModelInstance
    sent_at: float
    heard_at: float | None
    expected: float


def suspects(
    moving: Iterable[Progress], twins: Twins, now: float, patience: Patience
) -> Sequence[ModelInstance]:
    """Return the instances without progress, while others make progress."""
    by_instance: dict[ModelInstance, list[Progress]] = {}
    for each in moving:
        by_instance.setdefault(each.instance, []).append(each)
    moved = {
        instance: _moved_at(instance, in_flight) for instance, in_flight in by_instance.items()
    }
    found = []
    for instance, in_flight in by_instance.items():
        twin = instance.twin
        if twin.loading is not None or twin.pending or not instance.resident:
            continue  # requests that wait for a load are silent for a reason
        oldest = min(in_flight, key=lambda each: each.sent_at)
        # Requests sent at the same time may have been served first.
        limit = max(patience.least, patience.times * oldest.expected * len(in_flight))
        silent_since = max(moved[instance], oldest.sent_at)
        if now - silent_since >= limit and _others_move(instance, moved, twins, now - limit):
            found.append(instance)
    return found


def _moved_at(instance: ModelInstance, in_flight: Iterable[Progress]) -> float:
    heard = max((each.heard_at for each in in_flight if each.heard_at is not None), default=-inf)
    return max(heard, instance.moved_at)


def _others_move(
    instance: ModelInstance, moved: dict[ModelInstance, float], twins: Twins, since: float
) -> bool:
    """Return whether something has come from that endpoint or of that model since then."""
    others = [*instance.twin.instances.values(), *twins.instances(instance.model)]
    return any(moved.get(each, each.moved_at) >= since for each in others if each is not instance)
