"""Fewest requests in flight."""

from olla.routing.policies.least_connections import LeastConnections
from tests.views import candidate, features


def test_the_fewest_in_flight_come_first_then_priority() -> None:
    """Load before preference; memory does not count."""
    policy = LeastConnections()
    order = sorted(
        [
            candidate("loaded", 0, in_flight=2, resident=True),
            candidate("low", 1, in_flight=1, priority=1),
            candidate("high", 2, in_flight=1, priority=9),
        ],
        key=lambda each: policy.key(each, features(), 3),
    )
    assert [each.view.name for each in order] == ["high", "low", "loaded"]
