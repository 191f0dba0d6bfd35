"""Fewest requests in flight, by olla's own count."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["LeastConnections"]


class LeastConnections:
    """The endpoint with the fewest of olla's requests; among equals the higher priority.

    Knows nothing of models in memory, so on a fleet with more models than fit it causes loads.
    """

    name = "least-connections"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """In flight, then priority, then turn."""
        return (
            candidate.in_flight,
            -candidate.view.spec.priority,
            rotation(candidate, features, count),
        )
