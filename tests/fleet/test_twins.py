"""The twins of all endpoints follow the snapshot."""

import msgspec

from olla.fleet.health import Health
from olla.fleet.instance import InFlightRequest
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import Model
from olla.fleet.twins import Twins
from tests.views import MODEL, fleet, send, twins, view


def test_lines_are_found_by_model_in_configuration_order() -> None:
    """Only on endpoints that have it."""
    kept = twins(view("a"), view("b", 1, models=["other"]), view("c", 2))
    assert [instance.twin.name for instance in kept.instances(MODEL)] == ["a", "c"]
    assert kept.instances("nobody") == ()


def test_two_names_of_one_digest_are_one_line() -> None:
    """What is loaded under one name serves the other."""
    both = msgspec.structs.replace(
        view("a"), models={name: Model(name, digest="d") for name in ("x", "y")}
    )
    kept = twins(both)
    assert kept.instances("x")[0] is kept.instances("y")[0]


def test_what_is_in_flight_is_counted_by_endpoint_and_model() -> None:
    """And a request without a model counts for its endpoint alone."""
    kept = twins(view("a"), view("b", 1))
    in_flight = send(kept, "a", count=2)
    twin = kept.by_name["b"]
    other = InFlightRequest(None, 0.0, 1.0)
    twin.sent(other, 0.0)
    assert (kept.on("a"), kept.on("b"), kept.on("c"), kept.total()) == (2, 1, 0, 3)
    assert (kept.on_model("a", MODEL), kept.on_model("b", MODEL)) == (2, 0)
    for flight in in_flight:
        kept.by_name["a"].ended(flight, 1.0)
    twin.ended(other, 1.0)
    assert kept.total() == 0


def test_an_endpoint_that_goes_is_forgotten_and_its_leases_can_still_end() -> None:
    """The twin lives on with those who hold it."""
    kept = twins(view("a"), view("b", 1))
    flight = send(kept, "a")[0]
    twin = kept.by_name["a"]
    kept.follow(fleet(view("b", 0)), 1.0)
    assert "a" not in kept.by_name
    assert kept.instances(MODEL)[0].twin.name == "b"
    twin.ended(flight, 2.0)
    assert twin.in_flight == 0


def test_a_node_that_went_away_has_nothing_in_memory() -> None:
    """Whatever was there before."""
    kept = twins(view("a", resident=["m:latest"]))
    assert kept.instances(MODEL)[0].resident
    kept.follow(fleet(view("a", health=Health.OFFLINE)), 1.0)
    assert not kept.instances(MODEL)[0].resident


def test_a_model_that_was_deleted_has_no_line() -> None:
    """As soon as nothing is in flight for it."""
    kept = twins(view("a", models=["m", "n"]))
    assert kept.instances(MODEL)
    assert kept.instances(canonical("n"))
    kept.follow(fleet(view("a", models=["n"])), 1.0)
    assert kept.instances(MODEL) == ()
    assert len(kept.by_name["a"].instances) == 1


def test_only_what_changed_is_taken_in() -> None:
    """A snapshot with one new view touches one twin."""
    kept = Twins()
    a, b = view("a"), view("b", 1)
    assert len(kept.follow(fleet(a, b), 0.0)) == 2
    changed = kept.follow(fleet(a, view("b", 1, resident=["m:latest"])), 1.0)
    assert [twin.name for twin in changed] == ["b"]


def test_priorities_are_tiers() -> None:
    """Numbered from the highest down, whatever the numbers are."""
    kept = twins(view("a", priority=7), view("b", 1, priority=900), view("c", 2, priority=7))
    assert [kept.tier(each) for each in kept.snapshot.endpoints] == [1, 0, 1]
