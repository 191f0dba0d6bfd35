"""The policies by their names in the configuration."""

from olla.routing.policies.least_connections import LeastConnections
from olla.routing.policies.loaded_first import LoadedFirst
from olla.routing.policies.priority import Priority
from olla.routing.policies.round_robin import RoundRobin
from olla.routing.policies.shortest_expected_delay import ShortestExpectedDelay
from olla.routing.policy import Policy

__all__ = ["DEFAULT", "POLICIES"]

DEFAULT = "shortest-expected-delay"

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        ShortestExpectedDelay(),
        LoadedFirst(),
        LeastConnections(),
        Priority(),
        RoundRobin(),
    )
}
