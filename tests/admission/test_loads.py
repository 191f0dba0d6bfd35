"""Which load is needed, when it begins, and when it is given up."""

import msgspec

from olla.admission.loads import Loads
from olla.admission.queue import Queue
from olla.admission.queue_types import BeginLoad, Ticket
from olla.failures import Failure, Kind
from olla.fleet.instance import ModelInstance, ModelLoad
from olla.fleet.model_names import canonical
from olla.fleet.twins import Twins
from olla.routing.decision import RoutingOptions
from tests.views import MODEL, features, send, twins, view

GRACE = 5.0


def node(*resident: str, room: int = 1) -> Twins:
    """A node that has the models m, n and o on disk, and room for so many in memory."""
    there = view("a", models=["m", "n", "o"], resident=resident)
    spec = msgspec.structs.replace(there.spec, max_loaded_models=room)
    return twins(msgspec.structs.replace(there, spec=spec))


def instance_of(kept: Twins, model: str = "m") -> ModelInstance:
    """A model on the node."""
    return kept.by_name["a"].names[canonical(model)]


class Waiting:
    """Requests that wait, and the loads for them."""

    def __init__(self, kept: Twins) -> None:
        self.kept = kept
        self.queue = Queue()
        self.loads = Loads()

    def wait(self, model: str = "m", now: float = 0.0) -> tuple[Ticket, BeginLoad | None]:
        """A request comes to wait for a model."""
        ticket = Ticket(
            features(model), model, instance_of(self.kept, model), canonical(model),
            work=1.0, asked_at=now, deadline=600.0, predicted=0.0,
        )  # fmt: skip
        self.queue.join(ticket, now)
        return ticket, self.loads.demand(ticket, now)

    def load(self, model: str = "m") -> tuple[Ticket, ModelLoad]:
        """A request comes to wait, and its model's load begins."""
        ticket, begun = self.wait(model)
        assert begun is not None
        return ticket, begun.loading

    def abandoned(self, now: float, grace: float = GRACE) -> list[ModelLoad]:
        """The loads that are given up now."""
        return [each.loading for each in self.loads.abandon(now, grace)]


def test_one_load_for_all_that_wait_for_it() -> None:
    """It begins with the first, with the options that the request has, and both wait for it."""
    waiting = Waiting(node())
    first, loading = waiting.load()
    second, begun = waiting.wait()
    assert begun is None
    assert len(waiting.loads) == 1
    assert loading.owned
    assert loading.instance is instance_of(waiting.kept)
    assert first.loaded_for
    assert second.loaded_for


def test_another_model_waits_for_the_load_under_way() -> None:
    """A node loads one at a time; the second one counts in what a third has to wait for."""
    waiting = Waiting(node(room=3))
    waiting.load("m")
    ticket, begun = waiting.wait("n")
    assert begun is None
    assert not ticket.loaded_for
    instance = instance_of(waiting.kept, "n")
    assert waiting.kept.by_name["a"].wanted == {instance: instance.load_seconds(0.0)}


def test_a_busy_victim_is_drained_until_demand_is_reset() -> None:
    """Nothing new starts on it; when whatever needed its room has gone, it is as it was."""
    waiting = Waiting(node("m"))
    send(waiting.kept, "a")
    ticket, begun = waiting.wait("n")
    victim, twin = instance_of(waiting.kept), waiting.kept.by_name["a"]
    assert begun is None
    assert victim.draining
    assert [*twin.wanted] == [ticket.instance]
    waiting.queue.leave(ticket, 1.0)
    waiting.loads.reset_demand()
    assert not victim.draining
    assert not twin.wanted


def test_a_load_is_given_up_when_nothing_has_waited_for_it_for_the_grace() -> None:
    """Counted from when the last one left, and not before; the node can load again."""
    waiting = Waiting(node())
    ticket, loading = waiting.load()
    assert waiting.abandoned(100.0) == []
    waiting.queue.leave(ticket, 100.0)
    assert waiting.abandoned(100.0) == []
    assert waiting.abandoned(104.9) == []
    assert waiting.abandoned(105.0) == [loading]
    assert len(waiting.loads) == 0
    assert waiting.kept.by_name["a"].loading is None
    assert waiting.abandoned(200.0) == []


def test_a_load_goes_on_when_another_request_comes_to_wait_for_it() -> None:
    """And the grace begins anew when that one leaves."""
    waiting = Waiting(node())
    first, loading = waiting.load()
    waiting.queue.leave(first, 0.0)
    assert waiting.abandoned(0.0) == []
    second, _ = waiting.wait(now=4.0)
    assert waiting.abandoned(60.0) == []
    waiting.queue.leave(second, 60.0)
    assert waiting.abandoned(60.0) == []
    assert waiting.abandoned(64.9) == []
    assert waiting.abandoned(65.0) == [loading]


def test_without_grace_a_load_ends_with_the_last_that_waits() -> None:
    """At once."""
    waiting = Waiting(node())
    ticket, loading = waiting.load()
    assert waiting.abandoned(1.0, grace=0.0) == []
    waiting.queue.leave(ticket, 1.0)
    assert waiting.abandoned(1.0, grace=0.0) == [loading]


def test_the_end_of_a_load_is_taken_in_once() -> None:
    """Well or badly; of one that was given up nothing more is heard."""
    waiting = Waiting(node())
    _, loading = waiting.load()
    assert waiting.loads.ended(loading, 4.0, None)
    assert instance_of(waiting.kept).resident
    assert not waiting.loads.ended(loading, 4.0, None)

    waiting = Waiting(node())
    _, loading = waiting.load()
    assert waiting.loads.ended(loading, 4.0, Failure(Kind.RESET, "gone", "a"))
    assert not instance_of(waiting.kept).resident
    assert waiting.kept.by_name["a"].loading is None

    waiting = Waiting(node())
    ticket, loading = waiting.load()
    waiting.queue.leave(ticket, 0.0)
    assert waiting.abandoned(0.0, grace=0.0) == [loading]
    assert not waiting.loads.ended(loading, 1.0, Failure(Kind.RESET, "hung up", "a"))


def busy() -> Twins:
    """A model on one of two nodes, for which more requests come than that one can take."""
    kept = twins(view("a", resident=["m"]), view("b", 1))
    instance = kept.instances(MODEL)[0]
    for number in range(600):
        instance.habits.arrivals.add(float(number))
    for _ in range(100):
        instance.rates.learned((1000, 1.0), (100, 1.0))
    return kept


def test_a_copy_that_is_loaded_ahead_of_time_is_not_given_up_for_want_of_waiters() -> None:
    """Nobody waits for it, that is the point; with no grace at all it would never be there."""
    kept, loads = busy(), Loads()
    assert loads.prewarm_due(600.0)
    begun = loads.prewarm(kept, RoutingOptions(), 600.0)
    assert begun is not None
    assert begun.loading.instance.twin.name == "b"
    assert not loads.prewarm_due(601.9)
    assert loads.prewarm_due(602.0)
    assert loads.abandon(600.0, 0.0) == loads.abandon(9000.0, 0.0) == []
    assert loads.ended(begun.loading, 9000.0, None)


def test_nothing_is_loaded_ahead_of_time_where_that_is_switched_off() -> None:
    """`routing.prewarm: false`."""
    assert Loads().prewarm(busy(), RoutingOptions(prewarm=False), 600.0) is None
