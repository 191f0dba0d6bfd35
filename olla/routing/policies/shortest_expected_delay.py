"""The endpoint that is expected to produce the first token soonest."""

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policy import rotation

__all__ = ["ShortestExpectedDelay"]


class ShortestExpectedDelay:
    """The smallest expected delay in seconds, see `routing.delay`; among equals, in turn.

    Knows what is loaded, how long loads and answers take where, and what it has sent itself. A
    request that cannot start at once waits in olla, and is priced again whenever something
    changes; with `late=False` it is sent on at once and waits on the node.
    """

    name = "shortest-expected-delay"
    priced = True

    def __init__(self, *, late: bool = True) -> None:
        self.binds_late = late

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Delay, then turn. A lower priority's delay has the spillover counted in."""
        return (candidate.delay, rotation(candidate, features, count))
