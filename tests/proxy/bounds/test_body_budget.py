"""The memory budget of request bodies."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.failures import Kind
from olla.proxy.bounds.body_budget import STEP, BodyBudget, BodyBuffer, BodyCharge

MB = 1 << 20


def test_a_body_is_charged_in_steps_as_it_arrives() -> None:
    """Less than one step is free, and releasing twice releases the charge once."""
    budget = BodyBudget(64 * MB, MB)
    charge = BodyCharge(budget, "addr:1")
    for arrived, counted in ((0, 0), (STEP - 1, 0), (STEP, STEP), (3 * STEP + 5, 3 * STEP)):
        assert charge.hold(arrived) is None
        assert budget.taken == counted
    charge.release()
    charge.release()
    assert budget.taken == 0


def test_all_bodies_together_stay_within_the_limit() -> None:
    """The next body gets a 503 that names the setting, until another body is released."""
    budget = BodyBudget(4 * STEP, STEP)
    charges = [BodyCharge(budget, f"addr:{number}") for number in range(5)]
    assert [charge.hold(STEP) for charge in charges[:4]] == [None] * 4
    failure = charges[4].hold(STEP)
    assert failure is not None
    assert failure.kind is Kind.OVERLOADED
    assert "server.request_limits.max_buffered_size" in failure.message
    charges[0].release()
    assert charges[4].hold(STEP) is None


def test_one_caller_holds_a_quarter_of_the_budget_at_most() -> None:
    """Its next body gets a 429; bodies of other callers are still accepted."""
    budget = BodyBudget(16 * MB, MB)
    charges = [BodyCharge(budget, "owner:a") for _ in range(5)]
    assert [charge.hold(MB) for charge in charges[:4]] == [None] * 4
    failure = charges[4].hold(MB)
    assert failure is not None
    assert (failure.kind, failure.status) == (Kind.LIMITED, 429)
    assert failure.retry_after == 1.0
    assert BodyCharge(budget, "owner:b").hold(MB) is None
    charges[1].release()
    assert charges[4].hold(MB) is None


def test_a_callers_share_covers_the_longest_body() -> None:
    """Even if that exceeds a quarter of the budget; the total limit still holds."""
    assert BodyBudget(16 * MB, 6 * MB).share == 6 * MB
    small = BodyBudget(4 * MB, 6 * MB)
    assert small.share == 4 * MB
    failure = BodyCharge(small, "addr:1").hold(6 * MB)
    assert failure is not None
    assert failure.kind is Kind.OVERLOADED


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 40 * STEP)), max_size=60
    )
)
def test_charges_and_releases_always_balance(steps: list[tuple[int, int, int]]) -> None:
    """For any order of charges, rejections and releases, and while limits change."""
    budget = BodyBudget(100 * STEP, 10 * STEP)
    charges: dict[tuple[int, int], BodyCharge] = {}
    held: dict[tuple[int, int], int] = {}
    for number, caller, size in steps:
        key = number, caller
        charge = charges.setdefault(key, BodyCharge(budget, f"addr:{caller}"))
        if size == 0:
            charge.release()
            held.pop(key, None)
        elif charge.hold(size) is None:
            held[key] = max(held.get(key, 0), size - size % STEP)
        if size % 7 == 0:
            budget.resize(50 * STEP, STEP)
        assert budget.taken == sum(held.values())
        assert budget.taken <= 100 * STEP
    for charge in charges.values():
        charge.release()
    assert budget.taken == 0
    assert budget._held == {}


@given(st.lists(st.binary(max_size=5000), max_size=50))
def test_a_buffer_returns_the_added_pieces(added: list[bytes]) -> None:
    """In order, and only once."""
    buffer = BodyBuffer()
    for piece in added:
        buffer.add(piece)
    assert buffer.take() == b"".join(added)
    assert buffer.take() == b""
    buffer.add(b"x")
    buffer.clear()
    assert buffer.take() == b""


@pytest.mark.parametrize(("piece", "count"), [(1, 100_000), (100_000, 100)])
def test_a_buffer_has_little_memory_overhead(piece: int, count: int) -> None:
    """At most 15 % at its peak, for small and for large pieces."""
    buffer = BodyBuffer()
    tracemalloc.start()
    try:
        for _ in range(count):
            buffer.add(bytes(piece))
        whole = buffer.take()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(whole) == piece * count
    assert peak < 1.15 * len(whole) + 2 * piece + 5_000
