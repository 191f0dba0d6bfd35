"""Expected seconds, term by term."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.instance import InFlightRequest, ModelInstance
from olla.fleet.twins import Twins
from olla.routing.delay import Delay, expected_delay, missed, price
from olla.routing.features import Features
from tests.views import MODEL, features, send, twins, view

GB = 1e9


def request(tokens: float = 1000.0, **more: object) -> Features:
    """A request with a prompt of so many tokens."""
    return msgspec.structs.replace(features(), prompt_tokens=tokens, **more)  # type: ignore[arg-type]


def delay(kept: Twins, about: Features | None = None, now: float = 0.0, at: int = 0) -> Delay:
    """The delay on one of the model's lines."""
    return expected_delay(kept.instances(MODEL)[at], about or request(), kept, now)


def warm(num_parallel: int | None = 1) -> Twins:
    """An endpoint that has the model in memory."""
    return twins(view("a", resident=["m:latest"], num_parallel=num_parallel))


def test_a_free_slot_costs_the_prefill_only() -> None:
    """Tokens times seconds per token."""
    kept = warm()
    terms = delay(kept)
    assert terms.prefill == pytest.approx(1000 * kept.instances(MODEL)[0].rates.prefill)
    assert terms.total == terms.own == terms.prefill


def test_a_busy_slot_costs_what_is_left_of_its_work() -> None:
    """And less as time goes on."""
    kept = warm()
    send(kept, "a")
    early, late = delay(kept, now=0.0), delay(kept, now=0.5)
    assert early.wait == pytest.approx(1.0)
    assert late.wait == pytest.approx(0.5)


def test_a_second_slot_is_waited_for_half_as_long() -> None:
    """The first of two that becomes free is enough."""
    kept = warm(num_parallel=2)
    send(kept, "a")
    assert delay(kept).wait == 0.0
    send(kept, "a")
    assert delay(kept).wait == pytest.approx(0.5)


class WaitingRequest:
    """One that waits."""

    def __init__(self, order: float, work: float) -> None:
        self.order, self.work = order, work


def test_only_those_who_come_first_are_waited_for() -> None:
    """Places in the queue decide, not arrival."""
    kept = warm()
    send(kept, "a")
    kept.instances(MODEL)[0].waiting = [WaitingRequest(1.0, 3.0), WaitingRequest(9.0, 7.0)]
    assert delay(kept, request(order=5.0)).wait == pytest.approx(4.0)
    assert delay(kept, request(order=10.0)).wait == pytest.approx(11.0)


def test_a_cold_model_costs_its_load() -> None:
    """And a little of it to others; nothing is evicted where there is room."""
    terms = delay(twins(view("a")))
    assert terms.load == pytest.approx(4.0)
    assert terms.eviction == pytest.approx(0.12)
    assert terms.wait == terms.drain == 0.0


def test_a_load_under_way_costs_what_is_left_of_it() -> None:
    """Whoever comes later waits less."""
    kept = twins(view("a"))
    instance = kept.instances(MODEL)[0]
    instance.twin.start_load(instance, (), 0.0)
    assert delay(kept, now=1.0).load == pytest.approx(3.0)


def test_a_load_waits_for_the_one_before_it() -> None:
    """One at a time per node."""
    kept = twins(view("a", models=["m", "other"]))
    other = kept.by_name["a"].names[features("other").models[0]]
    other.twin.start_load(other, (), 0.0)
    assert delay(kept, now=1.0).load == pytest.approx(3.0 + 4.0)


def full() -> tuple[Twins, ModelInstance]:
    """An endpoint whose memory holds another model; the second is that one's line."""
    kept = twins(view("a", models=["m", "other"], resident=["other:latest"]))
    other = kept.by_name["a"].names[features("other").models[0]]
    kept.by_name["a"]._capacity = 6 * GB
    return kept, other


def test_a_busy_victim_is_waited_for() -> None:
    """It has to finish before it can go."""
    kept, other = full()
    kept.by_name["a"].sent(InFlightRequest(other, 0.0, 5.0), 0.0)
    assert delay(kept).drain == pytest.approx(5.0)


def test_an_eviction_costs_what_others_lose() -> None:
    """Nothing for a model nobody asks for, a reload and more for a busy one."""
    kept, other = full()
    assert delay(kept).eviction == pytest.approx(0.12)
    for second in range(600):
        other.habits.arrivals.add(float(second))
    busy = delay(kept, now=600.0)
    assert busy.eviction > other.rates.load_seconds(warm=True)
    assert busy.total == pytest.approx(busy.own + busy.eviction)


def test_a_model_that_is_elsewhere_too_is_missed_less() -> None:
    """Each copy makes the loss smaller."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1, resident=["m:latest"]))
    alone = twins(view("a", resident=["m:latest"]), view("b", 1))
    for fleet in (kept, alone):
        for second in range(600):
            fleet.instances(MODEL)[0].habits.arrivals.add(float(second))
    assert missed(kept.instances(MODEL)[0], kept, 600.0) < missed(
        alone.instances(MODEL)[0], alone, 600.0
    )


def test_a_vector_is_not_worth_a_chat_model() -> None:
    """An embedding model is loaded elsewhere as long as there is an elsewhere."""
    kept, _ = full()
    kept.instances(MODEL)[0].embedding = True
    assert delay(kept).total > 900.0
    assert delay(kept).own < 60.0


def test_other_load_options_cost_a_reload() -> None:
    """And the same ones do not."""
    kept = warm()
    instance = kept.instances(MODEL)[0]
    instance.options = (("num_ctx", 8192.0),)
    assert delay(kept, request(load_options=(("num_ctx", 8192.0),))).load == 0.0
    assert delay(kept, request(load_options=(("num_ctx", 4096.0),))).load > 0.0


def test_a_known_beginning_saves_its_prefill() -> None:
    """As seconds, so that a queue outweighs it."""
    kept = twins(view("a", resident=["m:latest"]), view("b", 1, resident=["m:latest"]))
    about = request(cached={"a": 800.0})
    assert delay(kept, about, at=0).own == pytest.approx(delay(kept, about, at=1).own / 5)
    send(kept, "a", count=9)
    assert delay(kept, about, at=0).own > delay(kept, about, at=1).own


@given(
    st.integers(0, 6), st.integers(1, 4), st.floats(0.0, 50.0), st.floats(0.0, 1e4), st.booleans()
)
def test_a_bound_stops_early_and_never_below_itself(
    in_flight: int, slots: int, now: float, tokens: float, resident: bool
) -> None:
    """The price with a bound is the price, or a lower bound of it beyond the bound."""
    kept = twins(view("a", resident=["m:latest"] if resident else [], num_parallel=slots))
    send(kept, "a", count=in_flight)
    instance, about = kept.instances(MODEL)[0], request(tokens)
    ready = instance.ready(about.load_options, now)
    whole = price(instance, about, kept, now, ready)
    assert whole == pytest.approx(expected_delay(instance, about, kept, now).total)
    bounded = price(instance, about, kept, now, ready, 1.0)
    assert bounded == whole or 1.0 < bounded <= whole


def test_a_model_that_is_to_make_room_costs_its_load_again() -> None:
    """Nothing new starts on it, so it has to be loaded once more."""
    kept = warm()
    kept.instances(MODEL)[0].draining = True
    assert delay(kept).load > 0.0


def test_a_load_that_others_wait_for_is_not_paid_twice() -> None:
    """It is one load; what it costs others is counted for the first that waits for it."""
    kept = twins(view("a", models=["m", "n"]))
    instance = kept.instances(MODEL)[0]
    other = kept.by_name["a"].names[features("n").models[0]]
    alone = delay(kept)
    instance.twin.wanted[instance] = 4.0
    assert (delay(kept).load, delay(kept).eviction) == (alone.load, 0.0)
    instance.twin.wanted[other] = 5.0
    assert delay(kept).load == pytest.approx(alone.load + 5.0)


def test_a_load_with_other_options_is_another_load() -> None:
    """Whoever needs the model in another way waits for that load and for its own."""
    kept = twins(view("a"))
    instance = kept.instances(MODEL)[0]
    instance.twin.start_load(instance, (("num_ctx", 8192.0),), 0.0)
    assert delay(kept, request(load_options=(("num_ctx", 8192.0),)), now=1.0).load == 3.0
    assert delay(kept, now=1.0).load == pytest.approx(3.0 + 4.0)


def test_loads_that_wait_on_the_node_come_first() -> None:
    """What was sent there before causes them one after another."""
    kept = twins(view("a", models=["m", "n", "o"]))
    twin = kept.by_name["a"]
    for model in ("n", "o"):
        twin.start_load(twin.names[features(model).models[0]], (), 0.0)
    assert delay(kept, now=1.0).load == pytest.approx(3.0 + 4.0 + 4.0)


def test_no_more_is_saved_than_the_prompt_takes() -> None:
    """The cache may hold a longer text that begins alike."""
    kept = warm()
    assert delay(kept, request(100.0, cached={"a": 5000.0})).own == 0.0
