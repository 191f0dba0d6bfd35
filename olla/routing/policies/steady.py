"""Choose the same endpoint while the fleet is unchanged."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features

__all__ = ["Steady"]


class Steady:
    """The highest priority, then configuration order, regardless of load.

    For operations that change a node: a blob and the `create` that names it must reach the same
    node. Not available in the configuration.
    """

    name = "steady"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Priority, then place in the configuration."""
        return (-candidate.view.spec.priority, candidate.view.position)
