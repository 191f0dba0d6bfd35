"""Each in its turn."""

from olla.routing.policies.round_robin import RoundRobin
from tests.views import candidate, features


def test_load_and_memory_do_not_count() -> None:
    """Only the ticket does."""
    policy = RoundRobin()
    among = [candidate("a", 0, in_flight=9), candidate("b", 1, resident=True), candidate("c", 2)]
    firsts = [
        min(among, key=lambda each: policy.key(each, features(ticket=ticket), 3)).view.name
        for ticket in range(6)
    ]
    assert firsts == ["a", "b", "c", "a", "b", "c"]
