"""What a limit says of itself."""

import pytest

from olla.access.limit import Limit, LimitKind


def test_a_limit_is_known_by_where_it_stands_and_what_it_counts() -> None:
    """As operators write it."""
    assert Limit("tiers.premium", LimitKind.TOKENS, 600).name == "tiers.premium.tokens_per_minute"


@pytest.mark.parametrize(
    ("limit", "interval", "window"),
    [
        (Limit("t", LimitKind.REQUESTS, 100, 120), 0.6, 72.0),
        (Limit("t", LimitKind.TOKENS, 600), 0.1, 60.0),
        (Limit("t", LimitKind.CONCURRENT, 4), 0.0, 0.0),
        (Limit("t", LimitKind.DAILY, 1000), 0.0, 0.0),
    ],
)
def test_one_comes_back_in_its_interval_and_a_burst_in_a_window(
    limit: Limit, interval: float, window: float
) -> None:
    """For limits per minute; without a burst, a minute's worth may come at once."""
    assert limit.interval == pytest.approx(interval)
    assert limit.window == pytest.approx(window)


def test_equal_limits_are_one() -> None:
    """A configuration that is read again changes nothing."""
    assert Limit("t", LimitKind.DAILY, 5) == Limit("t", LimitKind.DAILY, 5)
    assert Limit("t", LimitKind.DAILY, 5) != Limit("t", LimitKind.DAILY, 5, shadow=True)
