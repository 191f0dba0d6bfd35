"""Use lower priorities only if no endpoint of a higher priority is available."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["Priority"]


class Priority:
    """The highest `priority` number; among equals the fewest requests in flight.

    A lower priority is a reserve for failures. Load alone does not spill into it.
    """

    name = "priority"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Priority, then requests in flight, then rotation."""
        return (
            -candidate.view.spec.priority,
            candidate.in_flight,
            rotation(candidate, features, count),
        )
