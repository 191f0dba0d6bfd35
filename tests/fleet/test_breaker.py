"""The breaker: opens on failures in a row or as a share, and finds back by single trials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.breaker import (
    FAILURES_TO_OPEN,
    OPEN_SECONDS_MAX,
    TRANSITIONS,
    WINDOW,
    WINDOW_MIN,
    Breaker,
    BreakerEvent,
    BreakerState,
    come_back,
    fail,
    succeed,
    tick,
)

MIDDLE = 0.5
"""The draw that makes no jitter."""
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def after(outcomes: str, breaker: Breaker | None = None) -> Breaker:
    """A breaker after outcomes at time 0: `.` went well, `x` failed."""
    breaker = breaker or Breaker()
    for outcome in outcomes:
        breaker = succeed(breaker) if outcome == "." else fail(breaker, 0.0, MIDDLE)
    return breaker


def opened(times: int = 1) -> Breaker:
    """A breaker that has just opened, for the so-manieth time in a row."""
    breaker = after("x" * FAILURES_TO_OPEN)
    for _ in range(times - 1):
        breaker = fail(tick(breaker, breaker.until), 0.0, MIDDLE)
    return breaker


def test_every_state_knows_every_event() -> None:
    """The table is total."""
    assert set(TRANSITIONS) == set(BreakerState)
    assert all(set(row) == set(BreakerEvent) for row in TRANSITIONS.values())


def test_failures_in_a_row_open_it() -> None:
    """The fifth, and not the fourth."""
    assert after("x" * (FAILURES_TO_OPEN - 1)).state is CLOSED
    assert after("x" * FAILURES_TO_OPEN).state is OPEN


def test_a_success_ends_a_row() -> None:
    """Failures before it no longer count as one."""
    assert after("xxxx.xxxx").state is CLOSED


def test_an_endpoint_that_fails_every_other_request_is_found_out() -> None:
    """No row ever comes together, but the share does."""
    assert after(".x" * 4 + ".").state is CLOSED
    assert after(".x" * (WINDOW_MIN // 2)).state is OPEN


def test_a_share_of_few_says_nothing() -> None:
    """Nine outcomes, six of them failures, are not enough."""
    assert after("xx.xx.xx.").state is CLOSED


def test_less_than_half_is_borne() -> None:
    """One failure in three, for ever."""
    assert after("..x" * 50).state is CLOSED


def test_what_is_long_ago_is_forgotten() -> None:
    """Failures leave the window by and by, and a new share counts from there."""
    worn = after("..x" * 20 + "." * WINDOW)
    assert worn == after("." * WINDOW)
    assert after("xxxx", worn).state is CLOSED


def test_it_stays_open_for_a_second_then_twice_as_long_each_time() -> None:
    """1, 2, 4 … 30 seconds, without a success between them."""
    waits = [opened(times).until for times in range(1, 8)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, OPEN_SECONDS_MAX, OPEN_SECONDS_MAX]


def test_an_endpoint_may_fail_for_weeks() -> None:
    """The time does not grow with the openings for ever."""
    breaker = Breaker(HALF_OPEN, failures=9, openings=100_000)
    assert fail(breaker, 0.0, MIDDLE).until == OPEN_SECONDS_MAX


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 0.9), (0.5, 1.0), (0.999, 1.1)])
def test_the_time_has_jitter(draw: float, seconds: float) -> None:
    """Ten per cent each way, made of the draw."""
    breaker = fail(after("xxxx"), 0.0, draw)
    assert breaker.until == pytest.approx(seconds, abs=0.001)


def test_time_makes_an_open_one_half_open() -> None:
    """Not before its time, and nothing else."""
    breaker = opened()
    assert tick(breaker, breaker.until - 0.01) is breaker
    assert tick(breaker, breaker.until).state is HALF_OPEN
    closed = after("xx")
    assert tick(closed, 1e9) is closed


def test_a_good_trial_closes_it_and_the_slate_is_clean() -> None:
    """Neither the failures nor the long times of before count."""
    breaker = succeed(tick(opened(times=4), 1e9))
    assert breaker == Breaker(ramp=2)
    assert after("xxxxx", breaker).until == 1.0


def test_who_comes_back_starts_slowly() -> None:
    """Twice as many at a time after each success, until there is no bound; a failure raises
    nothing."""
    breaker = succeed(tick(opened(), 1e9))
    assert [after("." * count, breaker).ramp for count in range(6)] == [2, 4, 8, 16, 0, 0]
    assert after("x", breaker).ramp == 2


def test_an_endpoint_that_probes_find_again_starts_slowly_too() -> None:
    """Unless its breaker is open: then traffic decides."""
    assert come_back(after("..x")).ramp == 2
    assert come_back(opened()) == opened()


@pytest.mark.parametrize("outcomes", ["x" * FAILURES_TO_OPEN, ".x" * (WINDOW_MIN // 2)])
def test_a_bad_trial_opens_it_again(outcomes: str) -> None:
    """One failure is enough then, whether a row or a share of failures had opened it."""
    trial = tick(after(outcomes), 1.0)
    assert trial.state is HALF_OPEN
    breaker = fail(trial, 10.0, MIDDLE)
    assert breaker.state is OPEN
    assert breaker.until == 12.0


@pytest.mark.parametrize("outcome", [".", "x"])
def test_what_ends_while_it_is_open_is_old_news(outcome: str) -> None:
    """It neither closes nor prolongs: only a trial decides."""
    breaker = opened()
    assert after(outcome * 30, breaker) is breaker


def test_a_spotless_endpoint_costs_nothing() -> None:
    """Nothing but successes as far back as is remembered: the same object, request by request."""
    breaker = after("." * WINDOW)
    assert succeed(breaker) is breaker


@given(st.text(alphabet=".xt", max_size=100))
def test_whatever_happens_it_opens_by_failures_only_and_always_finds_back(outcomes: str) -> None:
    """Only a failure opens it; it is never open for longer than the bound; memory is bounded."""
    breaker, now = Breaker(), 0.0
    for outcome in outcomes:
        before = breaker
        if outcome == "t":
            now += 7.0
            breaker = tick(breaker, now)
        else:
            breaker = succeed(breaker) if outcome == "." else fail(breaker, now, MIDDLE)
        if breaker.state is OPEN and before.state is not OPEN:
            assert outcome == "x"
        if before.state is HALF_OPEN:  # a trial decides, and nothing else
            assert breaker.state is {".": CLOSED, "x": OPEN, "t": HALF_OPEN}[outcome]
        if breaker.state is OPEN:
            assert breaker.until <= now + OPEN_SECONDS_MAX * 1.1
        assert breaker.window < 1 << WINDOW
        assert breaker.seen <= WINDOW
    assert succeed(tick(breaker, now + 60.0)).state is CLOSED
