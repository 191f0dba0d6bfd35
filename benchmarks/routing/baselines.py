"""Baseline policies for comparison; not for production."""

from zlib import crc32

from olla.routing.candidates import Candidate
from olla.routing.features import Features
from olla.routing.policies import POLICIES
from olla.routing.policies.shortest_expected_delay import ShortestExpectedDelay
from olla.routing.policy import Policy

__all__ = ["BY_NAME", "LATE"]

LATE = "shortest-expected-delay"


class _Baseline:
    """Needs no delay estimates, and binds requests to an endpoint at once."""

    priced = False
    binds_late = False

    @staticmethod
    def chance(candidate: Candidate, features: Features) -> int:
        """Return a pseudo-random number, the same for the same request and endpoint."""
        return crc32(f"{features.ticket}/{candidate.index}".encode())


class Random(_Baseline):
    """Chooses any endpoint that has the model, like chat front ends with several servers."""

    name = "random"

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Order by chance."""
        return (self.chance(candidate, features),)


class PowerOfTwo(_Baseline):
    """Chooses the less busy of two random endpoints."""

    name = "power-of-two"

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Order by whether the endpoint was drawn, then by in-flight requests."""
        first = crc32(f"{features.ticket}/first".encode()) % count
        second = (
            first + 1 + crc32(f"{features.ticket}/second".encode()) % max(1, count - 1)
        ) % count
        return (candidate.index not in (first, second), candidate.in_flight)


class LoadedFirstUnguarded(_Baseline):
    """Chooses an endpoint where the model is resident, however busy it is."""

    name = "loaded-first-unguarded"

    def key(self, candidate: Candidate, features: Features, count: int) -> tuple[float, ...]:
        """Order by residency, then by in-flight requests."""
        return (
            candidate.resident is False,
            candidate.in_flight,
            (candidate.index - features.ticket) % count,
        )


class Early(ShortestExpectedDelay):
    """The default policy without its queue: requests are sent at once and wait on the node."""

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
