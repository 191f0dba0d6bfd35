"""Leases and tickets."""

from olla.admission.queue_types import Lease
from olla.fleet.instance import InFlightRequest
from olla.routing.decision import ChooseFallback, ChooseInstance, Reason
from tests.views import MODEL, features, twins, view


def test_a_lease_tells_how_long_it_was_waited_for() -> None:
    """From asking to getting; it counts when it has a flight."""
    twin = twins(view("a")).by_name["a"]
    choice = ChooseInstance(twin, twin.names[MODEL], MODEL, Reason.QUEUED)
    lease = Lease(choice, features(), asked_at=1.0, granted_at=3.5, trial=False, predicted=None)
    assert lease.waited == 2.5
    assert not lease.counted
    lease.flight = InFlightRequest(None, 0.0, 1.0)
    assert lease.counted


def test_a_lease_concerns_its_endpoint_and_there_its_own_model_only() -> None:
    """One that fell back to an endpoint concerns none of the models there."""
    twin = twins(view("a", models=["m", "n"])).by_name["a"]
    own, other = twin.names[MODEL], twin.names[features("n").models[0]]
    to_line, fallen_back = (
        Lease(choice, features(), asked_at=0.0, granted_at=0.0, trial=False, predicted=None)
        for choice in (ChooseInstance(twin, own, MODEL, Reason.MODEL_LOADED), ChooseFallback(twin))
    )
    assert (to_line.instance, to_line.model) == (own, MODEL)
    assert (fallen_back.instance, fallen_back.model) == (None, None)
    for lease in (to_line, fallen_back):
        assert lease.concerns("a", None)
        assert not lease.concerns("b", None)
        assert not lease.concerns("a", other)
    assert to_line.concerns("a", own)
    assert not fallen_back.concerns("a", own)
