"""Who waits where: one fact, the same from both sides."""

from collections.abc import Sequence

from olla.admission.queue import Queue
from olla.admission.queue_types import Ticket
from olla.fleet.instance import ModelInstance
from olla.fleet.twins import Twins
from olla.routing.delay import expected_delay, work_ahead
from tests.views import MODEL, features, twins, view


def two_lines() -> tuple[Twins, ModelInstance, ModelInstance]:
    """The model on two endpoints."""
    kept = twins(view("a", resident=["m"]), view("b", 1, resident=["m"]))
    first, second = kept.instances(MODEL)
    return kept, first, second


def ticket(
    instance: ModelInstance, order: float, work: float = 2.0, deadline: float = 10.0
) -> Ticket:
    """A ticket for a line."""
    about = features()
    made = Ticket(
        about, "m", instance, MODEL, work=work, asked_at=0.0, deadline=deadline, predicted=0.0
    )
    made.order = order
    return made


def on(instance: ModelInstance) -> Sequence[object]:
    """What the line shows."""
    return [*instance.waiting]


def test_a_line_shows_what_waits_for_it_in_order() -> None:
    """Whatever the order of coming."""
    _, first, second = two_lines()
    queue = Queue()
    late, early, other = ticket(first, 5.0), ticket(first, 1.0), ticket(second, 3.0)
    for each in (late, early, other):
        queue.join(each, 0.0)
    assert [*queue.tickets] == [early, other, late]
    assert on(first) == [*queue.on(first)] == [early, late]
    assert on(second) == [other]


def test_whatever_moves_waits_for_the_new_line_only() -> None:
    """With the name of the model there; a load that began on the old line was not for it."""
    _, first, second = two_lines()
    queue = Queue()
    moving = ticket(first, 1.0)
    moving.loaded_for = True
    queue.join(moving, 0.0)
    queue.assign(moving, first, "same line")
    assert (moving.loaded_for, moving.model) == (True, "same line")
    queue.assign(moving, second, MODEL)
    assert (moving.instance, moving.model, moving.loaded_for) == (second, MODEL, False)
    assert (on(first), on(second)) == ([], [moving])
    assert [*queue.tickets] == [moving]


def test_whatever_leaves_is_nowhere_any_more() -> None:
    """Neither among the tickets nor on the line nor in its caller's backlog; leaving again
    changes nothing."""
    _, first, _ = two_lines()
    queue = Queue()
    gone, stays = ticket(first, 1.0, work=7.0), ticket(first, 2.0, work=1.0)
    for each in (gone, stays):
        queue.join(each, 0.0)
    assert queue.leave(gone, 0.0)
    assert not queue.leave(gone, 0.0)
    assert (on(first), [*queue.tickets]) == ([stays], [stays])
    assert queue.shares.place("", 0.0) == 1.0
    assert queue.leave(stays, 0.0)
    assert (on(first), [*queue.tickets]) == ([], [])
    assert queue.shares.place("", 0.0) == 0.0


def test_a_wait_is_estimated_from_what_waits_now() -> None:
    """By the work of what comes first; after all have left it is nothing."""
    kept, first, _ = two_lines()
    queue = Queue()
    waiting = [ticket(first, float(order), work=3.0) for order in range(24)]
    for each in waiting:
        queue.join(each, 0.0)
    newcomer = features()
    assert work_ahead(first, newcomer, 0.0) == 72.0
    for each in waiting:
        queue.leave(each, 0.0)
    assert work_ahead(first, newcomer, 0.0) == 0.0
    assert expected_delay(first, newcomer, kept, 0.0).wait == 0.0


def test_late_is_whatever_has_reached_its_deadline() -> None:
    """Not before, and in the queue's order."""
    _, first, _ = two_lines()
    queue = Queue()
    soon, later = ticket(first, 2.0, deadline=5.0), ticket(first, 1.0, deadline=6.0)
    for each in (soon, later):
        queue.join(each, 0.0)
    assert queue.late(4.9) == []
    assert queue.late(5.0) == [soon]
    assert queue.late(6.0) == [later, soon]
