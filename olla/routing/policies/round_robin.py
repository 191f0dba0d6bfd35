"""Each in its turn."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["RoundRobin"]


class RoundRobin:
    """The candidates in turn, whatever they are busy with: for fleets of equals."""

    name = "round-robin"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Turn only."""
        return (rotation(candidate, features, count),)
