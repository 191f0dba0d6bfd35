"""Counting what is in flight."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.load import Load

requests = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["m", "n", None])))


def test_requests_are_counted_by_endpoint_and_by_model() -> None:
    """A request without a model counts for its endpoint alone."""
    load = Load()
    load.add("a", "m")
    load.add("a", "m")
    load.add("a", None)
    load.add("b", "n")
    assert (load.on("a"), load.on("b"), load.on("c")) == (3, 1, 0)
    assert (load.on_model("a", "m"), load.on_model("a", "n"), load.on_model("b", "n")) == (2, 0, 1)
    assert load.total() == 4


@given(requests, st.randoms(use_true_random=False))
def test_what_comes_goes(given_requests: list[tuple[str, str | None]], order: object) -> None:
    """When every request has ended, in whatever order, all counts are zero and nothing is kept."""
    load = Load()
    for endpoint, model in given_requests:
        load.add(endpoint, model)
    assert load.total() == len(given_requests)
    ending = list(given_requests)
    order.shuffle(ending)  # type: ignore[attr-defined]
    for left, (endpoint, model) in enumerate(ending, start=1):
        load.remove(endpoint, model)
        assert load.total() == len(ending) - left
    assert not load._by_endpoint
    assert not load._by_model


def test_nothing_is_removed_that_was_not_there() -> None:
    """A right given back twice is a bug, and says so."""
    load = Load()
    load.add("a", "m")
    load.remove("a", "m")
    with pytest.raises(KeyError):
        load.remove("a", "m")


def test_a_trial_is_on_until_it_is_over() -> None:
    """Per endpoint; ending what never began changes nothing."""
    load = Load()
    load.begin_trial("a")
    assert load.on_trial("a")
    assert not load.on_trial("b")
    load.end_trial("a")
    load.end_trial("a")
    assert not load.on_trial("a")
