"""The interface of a policy: a stateless order of candidates, in one pure method.

To add one, write a module in `policies/` with a class that has `name` and `key`, and add a line to
`policies.POLICIES`. The conformance tests then check it.
"""

from typing import Protocol

from olla.routing.candidates import Candidate
from olla.routing.features import Features

__all__ = ["Policy", "rotation"]


class Policy(Protocol):
    """Orders candidates. The smallest key is tried first."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    @property
    def priced(self) -> bool:
        """Whether it uses expected delays, which take time to compute. The smallest delay is first,
        and `key` orders only equals."""
        ...

    @property
    def binds_late(self) -> bool:
        """Whether a request that cannot start at once waits in olla instead of on the node."""
        ...

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Return the sort key of one of `count` candidates. `rotation` must break ties."""
        ...


def rotation(candidate: Candidate, features: Features, count: int) -> int:
    """Return a place in `range(count)` that advances with every request, for fair ties."""
    return (candidate.index - features.ticket) % count
