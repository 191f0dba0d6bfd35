"""Which models are suspect: nothing comes from them although it should and others move."""

import pytest

from olla.fleet.instance import InFlightRequest, ModelInstance
from olla.fleet.stalls import Patience, Progress, suspects
from olla.fleet.twins import Twins
from tests.views import features, twins, view

PATIENCE = Patience(least=30.0, times=4.0)
M, N = features("m", "n").models


@pytest.fixture
def fleet() -> Twins:
    """`a` has both models in memory, `b` one of them; all is well."""
    both = view("a", models=["m", "n"], resident=["m", "n"])
    return twins(both, view("b", 1, models=["m"], resident=["m"]))


def silent(instance: ModelInstance, since: float = 0.0, expected: float = 5.0) -> Progress:
    """A request of which nothing has come."""
    return Progress(instance, since, None, expected)


def test_a_line_is_suspect_when_another_model_on_the_endpoint_moves(fleet: Twins) -> None:
    """Not before its time."""
    stuck, other = fleet.by_name["a"].names[M], fleet.by_name["a"].names[N]
    for now, found in ((29.0, []), (31.0, [stuck])):
        moving = [silent(stuck), Progress(other, 0.0, now - 1.0, 5.0)]
        assert list(suspects(moving, fleet, now, PATIENCE)) == found


def test_a_line_is_suspect_when_its_model_moves_elsewhere(fleet: Twins) -> None:
    """An answer that has ended counts as well."""
    stuck = fleet.by_name["a"].names[M]
    fleet.by_name["b"].names[M].moved_at = 30.0
    assert list(suspects([silent(stuck)], fleet, 31.0, PATIENCE)) == [stuck]


def test_when_nothing_moves_anywhere_nobody_is_suspect(fleet: Twins) -> None:
    """There is nothing to compare with: the time-outs decide."""
    instances = [fleet.by_name["a"].names[M], fleet.by_name["b"].names[M]]
    assert not suspects([silent(instance) for instance in instances], fleet, 500.0, PATIENCE)


@pytest.mark.parametrize("expected", [10.0, 100.0])
def test_long_work_takes_long(fleet: Twins, expected: float) -> None:
    """Four times what was expected, for each that came with it."""
    slow = fleet.by_name["a"].names[M]
    fleet.by_name["b"].names[M].moved_at = 1e9
    two = [silent(slow, expected=expected), silent(slow, since=1.0, expected=expected)]
    assert not suspects(two, fleet, 8 * expected - 1, PATIENCE)
    assert suspects(two, fleet, 8 * expected + 1, PATIENCE)


def test_one_answer_that_moves_clears_the_line(fleet: Twins) -> None:
    """Others wait for their turn behind it."""
    instance = fleet.by_name["a"].names[M]
    fleet.by_name["b"].names[M].moved_at = 1e9
    moving = [silent(instance), Progress(instance, 0.0, 99.0, 5.0)]
    assert not suspects(moving, fleet, 100.0, PATIENCE)


def test_who_waits_for_a_load_is_silent_by_right(fleet: Twins) -> None:
    """The load may be another model's."""
    twin = fleet.by_name["a"]
    instance = twin.names[M]
    fleet.by_name["b"].names[M].moved_at = 1e9
    assert suspects([silent(instance)], fleet, 100.0, PATIENCE)
    twin.sent(InFlightRequest(twin.names[N], 99.0, 1.0, options=(("num_ctx", 4096.0),)), 99.0)
    assert twin.loading is not None
    assert not suspects([silent(instance)], fleet, 99.5, PATIENCE)
