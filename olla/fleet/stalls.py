"""Models on which nothing moves although their endpoint says that all is well.

A runner can hang while the server before it answers every probe: requests go in and nothing comes
out. Only traffic shows that, and only in comparison: an endpoint may take long over a prompt, and
tools may make it silent for a whole answer. So a line is suspect when what it has was expected to
be long over, nothing at all has come from it meanwhile, and something has come from another model
on that endpoint or from that model elsewhere.

Pure: whether a suspicion is right, a request of one token tells. Times are monotonic seconds.
"""

from collections.abc import Iterable, Sequence
from math import inf

import msgspec

from olla.fleet.instance import ModelInstance
from olla.fleet.twins import Twins

__all__ = ["Patience", "Progress", "suspects"]


class Patience(msgspec.Struct, frozen=True):
    """How long nothing may come from a line: `least` seconds, and `times` what was expected."""

    least: float = 30.0
    times: float = 4.0


class Progress(msgspec.Struct, frozen=True):
    """A request that is with an endpoint: on which line, since when, and when something last came
    of it (None for nothing yet)."""

    instance: ModelInstance
    sent_at: float
    heard_at: float | None
    expected: float


def suspects(
    moving: Iterable[Progress], twins: Twins, now: float, patience: Patience
) -> Sequence[ModelInstance]:
    """The lines on which nothing moves, although it should and others move."""
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
            continue  # whoever waits for a load is silent by right
        oldest = min(in_flight, key=lambda each: each.sent_at)
        # Those that came with it may have had their turn before it.
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
    """Whether something has come from that endpoint or of that model since then."""
    others = [*instance.twin.instances.values(), *twins.instances(instance.model)]
    return any(moved.get(each, each.moved_at) >= since for each in others if each is not instance)
