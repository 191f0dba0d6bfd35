"""The retry budget: a node that dies is made up for, an outage is not multiplied."""

from hypothesis import given
from hypothesis import strategies as st

from olla.admission.retry_budget import RESERVE, RetryBudget


def test_a_node_that_dies_with_all_it_has_is_made_up_for() -> None:
    """However many were in flight: each may be tried once more."""
    budget = RetryBudget()
    assert all(budget.spend(in_flight=1000 - done, free=False) for done in range(500))
    assert budget.refused == 0


def test_an_outage_that_lasts_costs_a_share_of_live_traffic() -> None:
    """Every request fails everywhere: in the long run one in five is tried again."""
    budget = RetryBudget(share=0.2)
    for _ in range(10_000):
        budget.earn()
        budget.spend(in_flight=10, free=False)
    assert 0.2 * 10_000 <= budget.made <= 0.2 * 10_000 + RESERVE + 10
    assert budget.made + budget.refused == 10_000


def test_what_no_endpoint_has_seen_is_free() -> None:
    """A connection that could not be made cost no graphics card anything."""
    budget = RetryBudget(share=0.0)
    assert all(budget.spend(in_flight=0, free=True) for _ in range(1000))
    assert not budget.spend(in_flight=100, free=False)


@given(st.lists(st.booleans(), max_size=300), st.floats(0.0, 1.0), st.integers(0, 50))
def test_it_never_allows_more_than_was_earned(steps: list[bool], share: float, live: int) -> None:
    """Beyond the reserve and what is in flight."""
    budget = RetryBudget(share)
    for new in steps:
        if new:
            budget.earn()
        else:
            budget.spend(in_flight=live, free=False)
    assert budget.made <= RESERVE + live + share * sum(steps)
