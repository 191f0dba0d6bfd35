"""Always the same endpoint while the fleet stays as it is."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features

__all__ = ["Steady"]


class Steady:
    """The highest priority, then configuration order; load and turn do not count.

    For operations that change a node: a blob and the `create` that names it must meet on one
    node, so these go to the same endpoint every time. Not for the configuration.
    """

    name = "steady"
    priced = False
    binds_late = False

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Priority, then place in the configuration."""
        return (-candidate.view.spec.priority, candidate.view.position)
