"""Policies that are there to be compared with: nobody should configure them."""

from zlib import crc32

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policies import POLICIES
from olla.routing.policies.shortest_expected_delay import ShortestExpectedDelay
from olla.routing.policy import Policy

__all__ = ["BY_NAME", "LATE"]

LATE = "shortest-expected-delay"


class _Baseline:
    """Goes by nothing that has to be priced, and sends at once."""

    priced = False
    binds_late = False

    @staticmethod
    def chance(candidate: Candidate, features: Features) -> int:
        """The same number for the same request and endpoint."""
        return crc32(f"{features.ticket}/{candidate.index}".encode())


class Random(_Baseline):
    """Any endpoint that has the model, as chat front ends do that know several servers."""

    name = "random"

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Chance."""
        return (self.chance(candidate, features),)


class PowerOfTwo(_Baseline):
    """The less busy of two endpoints drawn by chance."""

    name = "power-of-two"

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Whether it was drawn, then in flight."""
        first = crc32(f"{features.ticket}/first".encode()) % count
        second = (
            first + 1 + crc32(f"{features.ticket}/second".encode()) % max(1, count - 1)
        ) % count
        return (candidate.index not in (first, second), candidate.in_flight)


class LoadedFirstUnguarded(_Baseline):
    """An endpoint that has the model in memory, however busy it is."""

    name = "loaded-first-unguarded"

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """In memory, then in flight."""
        return (
            candidate.resident is False,
            candidate.in_flight,
            (candidate.index - features.ticket) % count,
        )


class Early(ShortestExpectedDelay):
    """The default without its queue: sent at once, waiting on the node."""

    name = "shortest-expected-delay, bound early"

    def __init__(self) -> None:
        super().__init__(late=False)


_ALL: tuple[Policy, ...] = (
    Random(),
    POLICIES["round-robin"],
    PowerOfTwo(),
    POLICIES["least-connections"],
    LoadedFirstUnguarded(),
    POLICIES["loaded-first"],
    Early(),
    POLICIES[LATE],
)
BY_NAME: dict[str, Policy] = {policy.name: policy for policy in _ALL}
