"""Endpoints that have the model in memory, as long as they have a slot free."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["LoadedFirst"]


class LoadedFirst:
    """A resident model with a free slot first, then fewest requests in flight.

    Resident is not idle: an endpoint that has the model loaded but all its slots busy counts
    like any other. Without that guard every request piles up on the one warm copy, which is worse
    than counting connections.
    """

    name = "loaded-first"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Warm and free, then in flight, then warm, then priority, then turn."""
        warm = candidate.resident is not False
        return (
            0 if warm and candidate.slot_free else 1,
            candidate.in_flight,
            0 if warm else 1,
            -candidate.view.spec.priority,
            rotation(candidate, features, count),
        )
