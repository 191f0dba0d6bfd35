"""Whether one more copy pays."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.admission.prewarm import expected_wait, propose
from olla.fleet.breaker import BreakerState
from olla.fleet.instance import InFlightRequest, ModelInstance
from olla.fleet.model_names import canonical
from olla.fleet.twins import Twins
from olla.routing.decision import RoutingOptions
from olla.routing.delay import missed
from tests.views import MODEL, twins, view

OPTIONS = RoutingOptions()


def busy(kept: Twins, model: str, per_second: float, seconds: int = 600) -> None:
    """Let requests for a model have come at this rate."""
    habits = kept.habits(model)
    assert habits is not None
    for number in range(int(per_second * seconds)):
        habits.arrivals.add(number / per_second)


def rates(instance: ModelInstance, prefill: float, decode: float) -> None:
    """Let the line's seconds per token be known."""
    for _ in range(100):
        instance.rates.learned((1000, 1000 * prefill), (100, 100 * decode))


def test_a_queue_of_one_server_is_as_long_as_the_formula_says() -> None:
    """M/M/1 at half use waits for one service."""
    wait = expected_wait(0.5, [(0.0, 1.0, 1)])
    assert wait == pytest.approx(1.0, rel=0.01)


@given(st.floats(0.01, 5.0), st.floats(0.1, 5.0), st.integers(1, 8))
def test_one_more_copy_of_the_same_kind_never_hurts(
    rate: float, service: float, slots: int
) -> None:
    """More slots, less waiting."""
    instance = (service / 4, service, slots)
    assert expected_wait(rate, [instance, instance]) <= expected_wait(rate, [instance]) * (1 + 1e-9)


def test_a_busy_model_gets_a_second_copy() -> None:
    """On a node that has room and nothing else to do."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1))
    rates(kept.instances(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    proposal = propose(kept, OPTIONS, 600.0)
    assert proposal is not None
    assert proposal.instance.twin.name == "b"
    assert proposal.saves > 0


def test_a_quiet_model_gets_none() -> None:
    """A request a minute does not wait."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1))
    rates(kept.instances(MODEL)[0], 0.001, 0.01)
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
    rates(kept.instances(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    assert propose(kept, OPTIONS, 600.0) is None


def test_a_lower_priority_is_not_filled_by_itself() -> None:
    """A reserve is for when it is needed."""
    kept = twins(view("a", resident=["m:latest"], priority=9), view("b", 1, priority=1))
    rates(kept.instances(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    assert propose(kept, OPTIONS, 600.0) is None


def wanted() -> tuple[Twins, ModelInstance]:
    """A model that is busy on a, with b free to take a copy; b's line."""
    kept = twins(view("a", resident=["m"]), view("b", 1))
    rates(kept.instances(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.6)
    instance = kept.instances(MODEL)[1]
    proposal = propose(kept, OPTIONS, 600.0)
    assert proposal is not None
    assert proposal.instance is instance
    return kept, instance


def test_no_copy_where_it_would_be_in_the_way() -> None:
    """Of a load under way or waited for, or where the breaker says that the node is not well."""
    kept, instance = wanted()
    instance.twin.wanted[instance] = 4.0
    assert propose(kept, OPTIONS, 600.0) is None
    kept, instance = wanted()
    instance.twin.start_load(instance, (("num_ctx", 1.0),), 600.0)
    assert propose(kept, OPTIONS, 600.0) is None
    kept, instance = wanted()
    view_now = msgspec.structs.replace(instance.twin.view, breaker=BreakerState.HALF_OPEN)
    instance.twin.set_view(view_now)
    assert propose(kept, OPTIONS, 600.0) is None


def test_no_copy_of_a_chat_model_where_only_embeddings_go() -> None:
    """Nothing would be sent to it there."""
    kept, _ = wanted()
    reserved = RoutingOptions(embedding_endpoints=frozenset({"b"}))
    assert propose(kept, reserved, 600.0) is None


def with_victim(*, per_second: float, elsewhere: bool = False) -> tuple[Twins, ModelInstance]:
    """A model in use on a; b would have to evict x for it, for which requests come too."""
    third = ["x"] if elsewhere else []
    kept = twins(
        view("a", resident=["m"]),
        view("b", 1, models=["m", "x"], resident=["x"]),
        view("c", 2, models=["x"], resident=third),
    )
    rates(kept.instances(MODEL)[0], 0.001, 0.01)
    busy(kept, MODEL, 0.1)
    kept.by_name["b"]._capacity = 5e9
    victim = kept.by_name["b"].names[canonical("x")]
    victim.used_at = 500.0
    busy(kept, canonical("x"), per_second)
    return kept, victim


def test_the_only_copy_of_a_model_in_use_costs_four_reloads_to_evict() -> None:
    """It counts against what the copy saves."""
    kept, _ = with_victim(per_second=0.0)
    free = propose(kept, OPTIONS, 600.0)
    kept, victim = with_victim(per_second=0.03)
    used = propose(kept, OPTIONS, 600.0)
    assert free is not None
    assert used is not None
    assert free.saves - used.saves == pytest.approx(4 * missed(victim, kept, 600.0))
    assert free.saves - used.saves > 1.0


def test_one_of_two_copies_that_are_both_needed_is_not_evicted() -> None:
    """What the requests of one model would gain, those of the other would lose."""
    kept, _ = with_victim(per_second=0.03, elsewhere=True)
    assert propose(kept, OPTIONS, 600.0) is not None
    kept, _ = with_victim(per_second=0.2, elsewhere=True)
    assert propose(kept, OPTIONS, 600.0) is None


def test_nothing_is_evicted_that_is_at_work_or_waited_for() -> None:
    """A load ahead of time is not worth anybody's wait."""
    kept, victim = with_victim(per_second=0.0)
    victim.waiting = [Waits(1.0, 1.0)]
    assert propose(kept, OPTIONS, 600.0) is None
    victim.waiting = ()
    assert propose(kept, OPTIONS, 600.0) is not None
    kept.by_name["b"].sent(InFlightRequest(victim, 600.0, 1.0), 600.0)
    assert propose(kept, OPTIONS, 600.0) is None


class Waits:
    """A request that waits."""

    def __init__(self, order: float, work: float) -> None:
        self.order, self.work = order, work
