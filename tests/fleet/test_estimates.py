"""Learned rates: shrunk toward what is known of the rest, and forgotten slowly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.estimates import (
    Arrivals,
    EndpointRates,
    FleetRates,
    InstanceRates,
    ModelHabits,
    Ratio,
)

GB = 1e9


def test_a_ratio_begins_at_its_prior_and_ends_at_what_was_seen() -> None:
    """The more was seen, the less the prior counts."""
    ratio = Ratio()
    assert ratio.value(0.5, 10.0) == 0.5
    values = []
    for _ in range(100):
        ratio.add(2.0, 1.0)
        values.append(ratio.value(0.5, 10.0))
    assert values == sorted(values)
    assert values[-1] == pytest.approx(2.0, rel=0.2)


def test_what_was_seen_long_ago_is_forgotten() -> None:
    """A node that became slower is known as slow after some hundred answers."""
    ratio = Ratio()
    for seconds in [1.0] * 500 + [5.0] * 300:
        ratio.add(seconds, 1.0)
    assert ratio.value(1.0, 1.0) == pytest.approx(5.0, rel=0.05)


def test_arrivals_are_counted_per_second_and_fade() -> None:
    """One a second is a rate of one; an hour later it is none."""
    arrivals = Arrivals()
    for second in range(2000):
        arrivals.add(float(second))
    assert arrivals.rate(2000.0) == pytest.approx(1.0, rel=0.02)
    assert arrivals.rate(5600.0) < 1e-4


def test_a_new_node_is_taken_to_be_like_the_others() -> None:
    """What the fleet has taught is the prior of an endpoint that nobody has asked yet."""
    fleet = FleetRates()
    known, new = EndpointRates(fleet), EndpointRates(fleet)
    blank = InstanceRates(new, 5 * GB).prefill
    instance = InstanceRates(known, 5 * GB)
    for _ in range(50):
        instance.learned((1000, 0.1), (100, 0.5))
    fresh = InstanceRates(new, 5 * GB)
    assert instance.prefill == pytest.approx(1e-4, rel=0.1)
    assert abs(fresh.prefill - 1e-4) < abs(blank - 1e-4)


def test_another_model_on_a_known_node_is_scaled_by_size() -> None:
    """Twice the bytes, about twice the seconds."""
    endpoint = EndpointRates(FleetRates())
    instance = InstanceRates(endpoint, 5 * GB)
    for _ in range(100):
        instance.learned((1000, 0.1), (100, 0.5))
    other = InstanceRates(endpoint, 10 * GB)
    assert other.prefill == pytest.approx(2 * instance.prefill, rel=0.15)
    assert other.decode == pytest.approx(2 * instance.decode, rel=0.15)


def test_loads_are_learned_cold_and_warm_apart() -> None:
    """A file in the page cache loads faster, and never slower than from disk."""
    instance = InstanceRates(EndpointRates(FleetRates()), 10 * GB)
    for _ in range(20):
        instance.loaded(20.0, warm=False)
        instance.loaded(2.0, warm=True)
    assert instance.load_seconds(warm=False) == pytest.approx(20.0, rel=0.1)
    assert instance.load_seconds(warm=True) == pytest.approx(2.0, rel=0.2)


def test_a_bandwidth_that_was_told_is_the_prior_of_every_load() -> None:
    """The first load is expected to take as long as the operator says."""
    instance = InstanceRates(EndpointRates(FleetRates(), bandwidth=2 * GB), 10 * GB)
    assert instance.load_seconds(warm=False) == pytest.approx(5.0)


def test_habits_are_learned_from_answers() -> None:
    """How long answers are, and how many bytes of prompt make a token."""
    habits = ModelHabits()
    for _ in range(100):
        habits.answered(prompt_bytes=3000, prompt_tokens=1000, output=50)
    assert habits.output_tokens == pytest.approx(50, rel=0.1)
    assert habits.prompt_tokens == pytest.approx(1000, rel=0.1)
    assert habits.tokens(3000) == pytest.approx(1000, rel=0.05)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(1e-4, 1e3)), max_size=40))
def test_rates_stay_positive_whatever_is_told(told: list[tuple[float, float]]) -> None:
    """No sequence of answers makes a node infinitely fast or its delay negative."""
    instance = InstanceRates(EndpointRates(FleetRates()), 4 * GB)
    for tokens, seconds in told:
        instance.learned((tokens, seconds), (tokens, seconds))
        instance.loaded(seconds, warm=False)
    assert instance.prefill > 0
    assert instance.decode > 0
    assert instance.load_seconds(warm=True) > 0
