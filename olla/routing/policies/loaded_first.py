"""Prefer endpoints with a loaded model, while they have a free slot."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["LoadedFirst"]


class LoadedFirst:
    """A loaded model with a free slot first, then the fewest requests in flight.

    An endpoint with a loaded model and only busy slots counts like any other. Without this rule
    every request would queue at the only loaded copy, which is worse than counting connections.
    """

    name = "loaded-first"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Loaded and free, then requests in flight, then loaded, then priority, then rotation."""
        warm = candidate.resident is not False
        return (
            0 if warm and candidate.slot_free else 1,
            candidate.in_flight,
            0 if warm else 1,
            -candidate.view.spec.priority,
            rotation(candidate, features, count),
        )
