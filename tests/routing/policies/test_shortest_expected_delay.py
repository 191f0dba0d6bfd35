"""The smallest expected delay."""

from olla.routing.policies.shortest_expected_delay import ShortestExpectedDelay
from tests.views import candidate, features


def test_the_smallest_delay_comes_first_whatever_is_loaded() -> None:
    """Resident is not idle."""
    policy = ShortestExpectedDelay()
    order = sorted(
        [
            candidate("warm", 0, resident=True, delay=9.0),
            candidate("cold", 1, delay=4.0),
            candidate("far", 2, delay=12.0),
        ],
        key=lambda each: policy.key(each, features(), 3),
    )
    assert [each.view.name for each in order] == ["cold", "warm", "far"]


def test_binding_late_can_be_left() -> None:
    """Then a request waits on the node."""
    assert ShortestExpectedDelay().binds_late
    assert not ShortestExpectedDelay(late=False).binds_late
