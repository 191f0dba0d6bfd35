"""The preferred endpoints first; the others only when those are gone."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["Priority"]


class Priority:
    """The highest `priority` number; among equals the fewest requests in flight.

    A lower priority is used only when no higher one can be routed to: it is a reserve, and load
    alone never spills into it.
    """

    name = "priority"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Priority, then in flight, then turn."""
        return (
            -candidate.view.spec.priority,
            candidate.in_flight,
            rotation(candidate, features, count),
        )
