"""Whether one more copy pays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.admission.placement import expected_wait, propose
from olla.fleet.line import Line
from olla.fleet.twins import Twins
from olla.routing.decision import RoutingOptions
from tests.views import MODEL, twins, view

OPTIONS = RoutingOptions()


def busy(kept: Twins, model: str, per_second: float, seconds: int = 600) -> None:
    """Let requests for a model have come at this rate."""
    habits = kept.habits(model)
    assert habits is not None
    for number in range(int(per_second * seconds)):
        habits.arrivals.add(number / per_second)


def rates(line: Line, prefill: float, decode: float) -> None:
    """Let the line's seconds per token be known."""
    for _ in range(100):
        line.rates.learned((1000, 1000 * prefill), (100, 100 * decode))


def test_a_queue_of_one_server_is_as_long_as_the_formula_says() -> None:
    """M/M/1 at half use waits for one service."""
    wait = expected_wait(0.5, [(0.0, 1.0, 1)])
    assert wait == pytest.approx(1.0, rel=0.01)


@given(st.floats(0.01, 5.0), st.floats(0.1, 5.0), st.integers(1, 8))
def test_one_more_copy_of_the_same_kind_never_hurts(
    rate: float, service: float, slots: int
) -> None:
    """More slots, less waiting."""
    line = (service / 4, service, slots)
    assert expected_wait(rate, [line, line]) <= expected_wait(rate, [line]) * (1 + 1e-9)


def test_a_busy_model_gets_a_second_copy() -> None:
    """On a node that has room and nothing else to do."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1))
    rates(kept.lines(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    proposal = propose(kept, OPTIONS, 600.0)
    assert proposal is not None
    assert proposal.line.twin.name == "b"
    assert proposal.saves > 0


def test_a_quiet_model_gets_none() -> None:
    """A request a minute does not wait."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1))
    rates(kept.lines(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 1 / 60)
    assert propose(kept, OPTIONS, 600.0) is None


def test_what_is_cold_everywhere_is_left_to_who_asks() -> None:
    """Nothing is loaded that nobody has asked for lately."""
    kept = twins(view("a"), view("b", 1))
    busy(kept, MODEL, 1.0)
    assert propose(kept, OPTIONS, 600.0) is None


def test_nothing_is_evicted_that_somebody_else_loaded() -> None:
    """What olla never used is not olla's to unload."""
    kept = twins(
        view("a", resident=["m:latest"], models=["m", "x"]),
        view("b", 1, models=["m", "x"], resident=["x:latest"]),
    )
    twin = kept.by_name["b"]
    twin._capacity = 5e9
    rates(kept.lines(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    assert propose(kept, OPTIONS, 600.0) is None


def test_a_lower_priority_is_not_filled_by_itself() -> None:
    """A reserve is for when it is needed."""
    kept = twins(view("a", resident=["m:latest"], priority=9), view("b", 1, priority=1))
    rates(kept.lines(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    assert propose(kept, OPTIONS, 600.0) is None
