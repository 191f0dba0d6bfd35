"""Choose the endpoint with the earliest expected first token."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["ShortestExpectedDelay"]


class ShortestExpectedDelay:
    """The smallest expected delay in seconds (`routing.delay`), with rotation among equals.

    Uses loaded models, learned load and generation times, and the requests in flight. A request
    that cannot start at once waits in olla and is evaluated again after every change. With
    `late=False` it is sent at once and waits on the node.
    """

    name = "shortest-expected-delay"
    priced = True

    def __init__(self, *, late: bool = True) -> None:
        self.binds_late = late

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Delay, then rotation. The delay includes the spillover charge of a lower priority."""
        return (candidate.delay, rotation(candidate, features, count))
