"""Leases and tickets."""

from olla.admission.tickets import Lease
from olla.fleet.line import Flight
from olla.routing.decision import Choose, Reason
from tests.views import MODEL, features, twins, view


def test_a_lease_tells_how_long_it_was_waited_for() -> None:
    """From asking to getting; it counts when it has a flight."""
    twin = twins(view("a")).by_name["a"]
    choice = Choose(twin, twin.names[MODEL], MODEL, Reason.QUEUED)
    lease = Lease(
        choice, features(), None, asked_at=1.0, granted_at=3.5, trial=False, predicted=None
    )
    assert lease.waited == 2.5
    assert not lease.counted
    lease.flight = Flight(None, 0.0, 1.0)
    assert lease.counted
