"""Time limits of slow clients."""

import pytest

from olla.proxy.bounds.client_timeouts import ClientTimeouts


@pytest.mark.parametrize(
    ("left", "moved", "after"),
    [(0.0, 0, 0.0), (5.0, 499, 5.998), (20.0, 1, 20.0), (1.0, 100 << 20, 20.0), (-1.0, 250, -0.5)],
)
def test_bytes_extend_the_time_up_to_the_initial_allowance(
    left: float, moved: int, after: float
) -> None:
    """Each `min_rate` bytes add one second, in both directions; no surplus accumulates."""
    limits = ClientTimeouts(body=20.0, send=20.0, min_rate=500.0)
    assert limits.body_left(left, moved) == pytest.approx(after)
    assert limits.send_left(left, moved) == pytest.approx(after)
