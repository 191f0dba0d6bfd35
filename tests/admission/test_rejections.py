"""What a request is told that the queue turns away."""

import pytest

from olla.admission.rejections import QueueLimits, queue_full, timed_out
from olla.failures import Kind


def test_a_full_queue_says_when_to_come_back() -> None:
    """When the wait would be over, in whole seconds."""
    failure = queue_full(10, 7.2, QueueLimits(max_queue=10)).failure
    assert failure.kind is Kind.QUEUE_FULL
    assert failure.status == 503
    assert failure.retry_after == 8.0
    assert "routing.max_queue" in failure.message


@pytest.mark.parametrize(("expected", "after"), [(0.0, 1.0), (1e6, 60.0)])
def test_retry_after_is_small_and_never_nothing(expected: float, after: float) -> None:
    """Clients sleep as long as they are told."""
    assert queue_full(0, expected, QueueLimits()).failure.retry_after == after


def test_a_wait_that_would_be_too_long_is_refused_at_once() -> None:
    """The message names the limit."""
    failure = queue_full(1, 700.0, QueueLimits(timeout=600.0)).failure
    assert "700 s" in failure.message
    assert "routing.queue_timeout" in failure.message


def test_a_wait_that_was_too_long_is_a_gateway_timeout() -> None:
    """With the model it was for."""
    failure = timed_out("llama3", QueueLimits(timeout=5.0)).failure
    assert failure.status == 504
    assert "llama3" in failure.message
    assert "5 s" in failure.message
