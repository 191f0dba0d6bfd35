"""Choice and lease in one step."""

import pytest

from olla.admission.dispatcher import Dispatcher
from olla.admission.tickets import Lease, LeaseError, Ticket
from olla.fleet.breaker import BreakerState
from olla.routing.decision import Refuse, RoutingOptions
from olla.routing.policies import POLICIES
from olla.routing.policies.steady import Steady
from tests.views import MODEL, features, fleet, view


def dispatcher() -> Dispatcher:
    """One that counts connections."""
    return Dispatcher(POLICIES["least-connections"], RoutingOptions())


def granted(outcome: Lease | Ticket | Refuse) -> Lease:
    """A lease, which it must be."""
    assert isinstance(outcome, Lease)
    return outcome


def test_a_lease_counts_before_the_next_choice_is_made() -> None:
    """Two requests at once go to two endpoints."""
    dispatch, snapshot = dispatcher(), fleet(view("a"), view("b", 1))
    first = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    second = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    assert {first.choice.view.name, second.choice.view.name} == {"a", "b"}
    assert dispatch.leases == 2
    assert dispatch.twins.on_model("a", MODEL) == 1


def test_a_released_lease_counts_no_more_and_cannot_be_released_again() -> None:
    """The count of what is in flight never goes wrong silently."""
    dispatch = dispatcher()
    lease = granted(dispatch.ask(features(), fleet(view("a")), "m", 0.0))
    dispatch.release(lease, 0.0)
    assert dispatch.leases == dispatch.twins.total() == 0
    with pytest.raises(LeaseError):
        dispatch.release(lease, 0.0)


def test_a_refusal_counts_nothing() -> None:
    """Nothing is in flight that was not sent."""
    dispatch = dispatcher()
    assert isinstance(dispatch.ask(features(), fleet(), "m", 0.0), Refuse)
    assert dispatch.leases == dispatch.twins.total() == 0


def test_what_occupies_no_slot_is_leased_but_not_load() -> None:
    """A `show` does not make an endpoint look busy."""
    dispatch = dispatcher()
    lease = granted(dispatch.ask(features(), fleet(view("a")), "m", 0.0, counted=False))
    assert dispatch.leases == 1
    assert dispatch.twins.total() == 0
    dispatch.release(lease, 0.0)
    assert dispatch.leases == 0


def test_a_half_open_endpoint_gets_one_trial_at_a_time() -> None:
    """The next one comes when the first is over; the other endpoint takes the rest."""
    half = view("a", breaker=BreakerState.HALF_OPEN, priority=999)
    snapshot = fleet(half, view("b", 1))
    dispatch = Dispatcher(POLICIES["priority"], RoutingOptions())
    trial, other = (granted(dispatch.ask(features(), snapshot, "m", 0.0)) for _ in range(2))
    assert (trial.choice.view.name, other.choice.view.name) == ("a", "b")
    assert trial.trial
    assert not other.trial
    dispatch.release(trial, 0.0)
    again = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    assert again.choice.view.name == "a"


def test_another_policy_can_stand_in() -> None:
    """Operations that change a node go to the same one whatever it is busy with."""
    dispatch, snapshot = dispatcher(), fleet(view("a"), view("b", 1))
    names = [
        granted(
            dispatch.ask(features(ticket=ticket), snapshot, "m", 0.0, policy=Steady())
        ).choice.view.name
        for ticket in range(3)
    ]
    assert names == ["a", "a", "a"]
