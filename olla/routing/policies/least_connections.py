"""Choose the endpoint with the fewest requests in flight, by olla's own count."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["LeastConnections"]


class LeastConnections:
    """The fewest requests in flight; among equals the higher priority.

    Ignores which models are loaded, so it causes loads on a fleet with more models than fit.
    """

    name = "least-connections"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Requests in flight, then priority, then rotation."""
        return (
            candidate.in_flight,
            -candidate.view.spec.priority,
            rotation(candidate, features, count),
        )
