"""In memory first, but only while a slot is free."""

from olla.routing.candidates import Candidate
from olla.routing.policies.loaded_first import LoadedFirst
from tests.views import candidate, features


def first(*among: Candidate) -> str:
    """The name of the one that is tried first."""
    policy = LoadedFirst()
    return min(among, key=lambda each: policy.key(each, features(), len(among))).view.name


def test_a_resident_model_with_a_free_slot_wins() -> None:
    """Even over an endpoint with nothing to do."""
    warm = candidate("warm", 0, in_flight=3, in_flight_model=0, resident=True)
    assert first(warm, candidate("idle", 1)) == "warm"


def test_a_resident_model_without_a_free_slot_does_not() -> None:
    """Resident is not idle: the load goes elsewhere."""
    busy = candidate("busy", 0, in_flight=1, resident=True)
    assert first(busy, candidate("idle", 1)) == "idle"


def test_more_slots_keep_it_attractive() -> None:
    """Until they are all taken."""
    some = candidate("some", 0, in_flight=3, resident=True, slots=4)
    full = candidate("full", 0, in_flight=4, resident=True, slots=4)
    assert first(some, candidate("idle", 1)) == "some"
    assert first(full, candidate("idle", 1)) == "idle"


def test_where_nothing_is_known_connections_are_counted() -> None:
    """Servers that tell no residency have their only model in memory."""
    told = candidate("told", 0, in_flight=2, resident=None, slots=None)
    assert first(told, candidate("other", 1, in_flight=1, resident=None, slots=None)) == "other"
