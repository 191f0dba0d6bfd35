"""What is noted of a choice."""

from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import Lease
from olla.fleet.snapshot import Snapshot
from olla.proxy.exchange.exchange import record_choice
from olla.record import RequestRecord
from olla.routing.decision import RoutingOptions
from olla.routing.policies import POLICIES
from tests.views import features, view


def test_a_choice_is_noted_with_the_endpoints_own_spelling() -> None:
    """Endpoint, its kind, why, and the model as it is called there."""
    dispatcher = Dispatcher(POLICIES["priority"], RoutingOptions())
    snapshot = Snapshot.of([view("gpu-1", models=["m:latest"], resident=["m:latest"])])
    lease = dispatcher.ask(features("m"), snapshot, "M", 0.0)
    assert isinstance(lease, Lease)
    record = RequestRecord("1", "POST", "/api/chat", "127.0.0.1", 0.0, 0.0)
    record_choice(record, lease.choice, "M")
    assert (record.endpoint, record.endpoint_type) == ("gpu-1", "ollama")
    assert (record.decision, record.reason) == ("routed", "model_loaded")
    assert record.model == "m:latest"
