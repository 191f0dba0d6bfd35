"""Always the same endpoint."""

from olla.routing.policies.steady import Steady
from tests.views import candidate, features


def test_neither_load_nor_turn_changes_it() -> None:
    """Priority, then place in the configuration."""
    policy = Steady()
    among = [candidate("a", 0, in_flight=9), candidate("b", 1), candidate("c", 2, priority=1)]
    for ticket in range(4):
        order = sorted(among, key=lambda each: policy.key(each, features(ticket=ticket), 3))
        assert [each.view.name for each in order] == ["a", "b", "c"]
