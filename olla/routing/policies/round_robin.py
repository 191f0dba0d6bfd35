"""Choose each endpoint in turn."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["RoundRobin"]


class RoundRobin:
    """Rotate through the candidates regardless of load: for uniform fleets."""

    name = "round-robin"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Rotation only."""
        return (rotation(candidate, features, count),)
