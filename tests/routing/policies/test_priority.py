"""The preferred endpoints first."""

from olla.routing.policies.priority import Priority
from tests.views import candidate, features


def test_load_never_spills_into_a_lower_priority() -> None:
    """A reserve is for when the others are gone."""
    policy = Priority()
    high = candidate("high", 0, in_flight=100, priority=2)
    low = candidate("low", 1, priority=1)
    assert policy.key(high, features(), 2) < policy.key(low, features(), 2)


def test_among_equals_the_fewest_in_flight() -> None:
    """Within a priority load counts."""
    policy = Priority()
    busy, idle = candidate("busy", 0, in_flight=1), candidate("idle", 1)
    assert policy.key(idle, features(), 2) < policy.key(busy, features(), 2)
