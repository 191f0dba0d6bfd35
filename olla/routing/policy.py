"""What a policy is: an order of candidates. Stateless, pure, one method.

To add one: a module in `policies/` with a class that has `name` and `key`, and one line in
`policies.POLICIES`. The conformance tests then hold for it.
"""

from typing import Protocol

from olla.routing.candidates import Candidate
from olla.routing.features import Features

__all__ = ["Policy", "rotation"]


class Policy(Protocol):
    """Orders candidates: the smallest key is tried first."""

    @property
    def name(self) -> str:
        """The word in the configuration."""
        ...

    @property
    def priced(self) -> bool:
        """Whether it goes by the expected delay of candidates, which costs time to know: the
        smallest comes first, and `key` orders equals only."""
        ...

    @property
    def binds_late(self) -> bool:
        """Whether a request that cannot start at once waits in olla rather than on the node."""
        ...

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """The sort key of one of `count` candidates. Ties must be broken by `rotation`."""
        ...


def rotation(candidate: Candidate, features: Features, count: int) -> int:
    """A place in `range(count)` that moves on by one with every request: for fair ties."""
    return (candidate.index - features.ticket) % count
