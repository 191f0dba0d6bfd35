"""What traffic says, as a circuit breaker."""

from olla.fleet.breaker import (
    FAILURES_TO_OPEN,
    OPEN_SECONDS_FIRST,
    OPEN_SECONDS_MAX,
    Breaker,
    BreakerState,
    fail,
    succeed,
    tick,
)


def failed(breaker: Breaker, times: int = 1, now: float = 0.0) -> Breaker:
    """After so many failures."""
    for _ in range(times):
        breaker = fail(breaker, now)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """One success between them, and the count begins anew."""
    almost = failed(Breaker(), FAILURES_TO_OPEN - 1)
    assert almost.state is BreakerState.CLOSED
    assert failed(almost).state is BreakerState.OPEN
    assert failed(succeed(almost, 0.0)).state is BreakerState.CLOSED


def test_it_half_opens_after_its_time_and_not_before() -> None:
    """Then a trial may come."""
    opened = failed(Breaker(), FAILURES_TO_OPEN, now=10.0)
    assert tick(opened, 10.0 + OPEN_SECONDS_FIRST - 0.01).state is BreakerState.OPEN
    assert tick(opened, 10.0 + OPEN_SECONDS_FIRST).state is BreakerState.HALF_OPEN


def test_the_trial_decides() -> None:
    """Success closes it and forgets; failure opens it for twice as long, up to a bound."""
    breaker = failed(Breaker(), FAILURES_TO_OPEN)
    waits = []
    now = 0.0
    for _ in range(8):
        waits.append(breaker.until - now)
        now = breaker.until
        breaker = tick(breaker, now)
        assert succeed(breaker, now) == Breaker()
        breaker = fail(breaker, now)
        assert breaker.state is BreakerState.OPEN
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == OPEN_SECONDS_MAX


def test_answers_to_older_requests_change_nothing_while_it_is_open() -> None:
    """Only a trial does."""
    opened = failed(Breaker(), FAILURES_TO_OPEN)
    assert succeed(opened, 0.5) == opened
    assert fail(opened, 0.5) == opened
