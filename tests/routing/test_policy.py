"""What policies share."""

from olla.routing.policy import rotation
from tests.views import candidate, features


def test_rotation_gives_each_place_its_turn() -> None:
    """Over as many tickets as there are candidates, each is first once."""
    everybody = [candidate(str(index), index) for index in range(5)]
    firsts = [
        min(everybody, key=lambda each: rotation(each, features(ticket=ticket), 5)).index
        for ticket in range(5)
    ]
    assert sorted(firsts) == [0, 1, 2, 3, 4]
