"""Health: every pair of state and event leads somewhere sensible, and the schedule follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.health import (
    SUSPICION_LIMIT,
    TRANSITIONS,
    Health,
    HealthEvent,
    HealthState,
    advance,
    next_interval,
)

MIDDLE = 0.5
"""The draw that makes no jitter."""

HEALTHY = HealthState(Health.HEALTHY)
events = st.lists(st.tuples(st.sampled_from(HealthEvent), st.floats(0.0, 100.0)), max_size=20)


def after(*events: HealthEvent, start: HealthState = HEALTHY) -> HealthState:
    """The state after events one second apart."""
    for now, event in enumerate(events, start=1):
        start = advance(start, event, float(now))
    return start


def test_every_state_knows_every_event() -> None:
    """The table is total, and leads to nowhere unknown."""
    assert set(TRANSITIONS) == set(Health)
    for row in TRANSITIONS.values():
        assert set(row) == set(HealthEvent)
        assert set(row.values()) <= set(Health)


def test_nothing_leads_back_to_unknown() -> None:
    """Once asked, an endpoint is never again one that was not asked."""
    for state, row in TRANSITIONS.items():
        if state is not Health.UNKNOWN:
            assert Health.UNKNOWN not in row.values()


def test_requests_go_to_healthy_and_busy_endpoints_only() -> None:
    """Slow is no reason to be left out; everything else is."""
    assert {each for each in Health if each.routable} == {Health.HEALTHY, Health.BUSY}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (HealthEvent.OK, Health.HEALTHY),
        (HealthEvent.LOADING, Health.WARMING),
        (HealthEvent.UNREACHABLE, Health.OFFLINE),
        (HealthEvent.BROKEN, Health.UNHEALTHY),
        (HealthEvent.UNAUTHORIZED, Health.CONFIG_ERROR),
        (HealthEvent.RATE_LIMITED, Health.RATE_LIMITED),
    ],
)
@pytest.mark.parametrize("state", Health)
def test_what_a_probe_found_counts_whatever_was_before(
    state: Health, event: HealthEvent, expected: Health
) -> None:
    """One finding leads to one state from everywhere: one good probe brings any of them back."""
    assert advance(HealthState(state), event, 1.0).health is expected


def test_slow_lists_make_busy() -> None:
    """A node that loads a model may block them, and takes requests all the same."""
    for state in set(Health) - {Health.OFFLINE}:
        assert advance(HealthState(state), HealthEvent.SLOW, 1.0).health is Health.BUSY


def test_what_was_gone_must_answer_fully_to_be_used() -> None:
    """Slow after offline is no proof; only a second answer in a row is."""
    assert after(HealthEvent.UNREACHABLE, HealthEvent.SLOW).health is Health.UNHEALTHY
    assert after(HealthEvent.UNREACHABLE, HealthEvent.OK).health is Health.HEALTHY
    assert after(HealthEvent.UNREACHABLE, HealthEvent.SLOW, HealthEvent.SLOW).health is Health.BUSY


def test_one_late_probe_ejects_nobody() -> None:
    """A time-out is a suspicion first: the endpoint stays routable."""
    assert after(HealthEvent.TIMEOUT).health is Health.BUSY
    assert after(HealthEvent.TIMEOUT).health.routable


def test_late_probes_in_a_row_do() -> None:
    """The third one is enough, and not the second."""
    assert after(*[HealthEvent.TIMEOUT] * (SUSPICION_LIMIT - 1)).health is Health.BUSY
    assert after(*[HealthEvent.TIMEOUT] * SUSPICION_LIMIT).health is Health.UNHEALTHY


@pytest.mark.parametrize("sign_of_life", [HealthEvent.OK, HealthEvent.SLOW, HealthEvent.ANSWERED])
def test_a_sign_of_life_between_late_probes_starts_the_count_anew(
    sign_of_life: HealthEvent,
) -> None:
    """Only time-outs in a row count."""
    state = after(*[HealthEvent.TIMEOUT] * (SUSPICION_LIMIT - 1), sign_of_life, HealthEvent.TIMEOUT)
    assert state.health is Health.BUSY
    assert state.timeouts == 1


def test_an_endpoint_never_heard_of_is_not_trusted_on_a_time_out() -> None:
    """The benefit of the doubt is for those that have worked."""
    assert after(HealthEvent.TIMEOUT, start=HealthState()).health is Health.UNHEALTHY


def test_a_loading_server_may_be_late() -> None:
    """It stays warming for a time-out or two, and is not taken for healthy."""
    assert after(HealthEvent.LOADING, HealthEvent.TIMEOUT).health is Health.WARMING


def test_an_answered_request_ends_busy() -> None:
    """Whoever answers is not dead; nothing of the suspicion is left."""
    state = after(HealthEvent.TIMEOUT, HealthEvent.ANSWERED)
    assert state.health is Health.HEALTHY
    assert (state.failures, state.timeouts) == (0, 0)


@pytest.mark.parametrize("health", [each for each in Health if not each.routable])
def test_an_answered_request_mends_nothing_else(health: Health) -> None:
    """It may be the rest of what was begun before: a probe has to tell."""
    state = HealthState(health, failures=3, since=0.5)
    assert advance(state, HealthEvent.ANSWERED, 9.0) == state


def test_an_answered_request_changes_nothing_when_all_is_well() -> None:
    """This happens for each request."""
    assert advance(HEALTHY, HealthEvent.ANSWERED, 9.0) is HEALTHY


def test_a_state_knows_since_when() -> None:
    """From its first event, not from the last."""
    assert after(HealthEvent.BROKEN, HealthEvent.BROKEN, HealthEvent.BROKEN).since == 1.0
    assert after(HealthEvent.BROKEN, HealthEvent.BROKEN, HealthEvent.OK).since == 3.0


def test_one_success_forgets_all_failures() -> None:
    """The next trouble starts with a short interval again."""
    state = after(*[HealthEvent.BROKEN] * 9, HealthEvent.OK)
    assert (state.failures, state.timeouts) == (0, 0)


@pytest.mark.parametrize(
    ("retry_after", "pause"), [(None, 30.0), (7.0, 7.0), (0.0, 0.0), (-5.0, 0.0), (86_400.0, 300.0)]
)
def test_a_pause_is_as_long_as_asked_for_within_reason(
    retry_after: float | None, pause: float
) -> None:
    """Half a minute without a word, five minutes at most."""
    state = advance(HEALTHY, HealthEvent.RATE_LIMITED, 100.0, retry_after)
    assert state.health is Health.RATE_LIMITED
    assert state.retry_at == 100.0 + pause


@pytest.mark.parametrize("event", [HealthEvent.OK, HealthEvent.SLOW])
def test_a_good_probe_does_not_cut_a_pause_short(event: HealthEvent) -> None:
    """A list that is answered says nothing about the path that was limited."""
    paused = advance(HEALTHY, HealthEvent.RATE_LIMITED, 100.0, 10.0)
    assert advance(paused, event, 109.0) == paused
    later = advance(paused, event, 110.0)
    assert later.health.routable
    assert later.retry_at is None


def test_a_pause_does_not_hide_worse() -> None:
    """An endpoint that goes away during its pause is offline."""
    paused = advance(HEALTHY, HealthEvent.RATE_LIMITED, 100.0, 10.0)
    assert advance(paused, HealthEvent.UNREACHABLE, 101.0).health is Health.OFFLINE


@given(events)
def test_no_history_is_a_trap(history: list[tuple[HealthEvent, float]]) -> None:
    """Whatever happened, a good probe after the longest pause makes it healthy."""
    state, now = HealthState(), 0.0
    for event, seconds in history:
        now += seconds
        state = advance(state, event, now)
    state = advance(state, HealthEvent.OK, now + 301.0)
    assert state.health is Health.HEALTHY
    assert (state.failures, state.timeouts, state.retry_at) == (0, 0, None)


@given(events, st.floats(0.1, 120.0), st.floats(0.0, 1.0, exclude_max=True))
def test_the_next_probe_is_never_now_and_never_far(
    history: list[tuple[HealthEvent, float]], interval: float, draw: float
) -> None:
    """Whatever happened, there is a pause before it, and a bound on that."""
    state, now = HealthState(), 0.0
    for event, seconds in history:
        now += seconds
        state = advance(state, event, now)
    wait = next_interval(interval, state, now, draw)
    assert 0.05 < wait <= max(300.0, interval) * 1.1


def test_a_healthy_endpoint_is_asked_every_interval() -> None:
    """Neither more nor less, but for the jitter."""
    assert next_interval(5.0, HEALTHY, 0.0, MIDDLE) == 5.0


def test_failures_make_probes_rarer() -> None:
    """1, 2, 4, 8 times the interval, and a minute at most."""
    waits = [
        next_interval(5.0, after(*[HealthEvent.BROKEN] * times), 0.0, MIDDLE)
        for times in range(1, 8)
    ]
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]


def test_a_node_that_is_down_is_asked_every_five_seconds_at_least() -> None:
    """However long it has been down and whatever its interval: restarted, it is back soon."""
    down = after(*[HealthEvent.UNREACHABLE] * 20)
    assert next_interval(5.0, down, 0.0, MIDDLE) == 5.0
    assert next_interval(30.0, down, 0.0, MIDDLE) == 5.0
    first = after(HealthEvent.UNREACHABLE)
    assert next_interval(1.0, first, 0.0, MIDDLE) == 1.0


@pytest.mark.parametrize("first", [HealthEvent.TIMEOUT, HealthEvent.LOADING])
def test_a_node_that_is_silent_and_gets_no_requests_is_asked_every_five_seconds(
    first: HealthEvent,
) -> None:
    """Found dead by time-outs, or silent while it loads: neither a suspicion that has to be
    settled within a second, nor an endpoint that answers badly and can wait a minute."""
    silent = after(first, *[HealthEvent.TIMEOUT] * 5)
    assert not silent.health.routable
    assert next_interval(5.0, silent, 0.0, MIDDLE) == 5.0
    assert next_interval(2.0, after(first, *[HealthEvent.TIMEOUT] * 2), 0.0, MIDDLE) >= 2.0


def test_a_suspicion_is_looked_into_at_once() -> None:
    """It gets requests meanwhile, so the wait is a second, not a back-off."""
    assert next_interval(5.0, after(HealthEvent.TIMEOUT, HealthEvent.TIMEOUT), 0.0, MIDDLE) == 1.0
    assert next_interval(0.2, after(HealthEvent.TIMEOUT), 0.0, MIDDLE) == 0.2


def test_loading_is_no_failure() -> None:
    """However long a load takes, the end of it is noticed within an interval."""
    assert next_interval(5.0, after(*[HealthEvent.LOADING] * 20), 0.0, MIDDLE) == 5.0


def test_an_interval_beyond_the_bound_is_kept() -> None:
    """Who asks once in five minutes is not asked more often for failing."""
    assert next_interval(300.0, after(*[HealthEvent.BROKEN] * 5), 0.0, MIDDLE) == 300.0


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.999])
def test_a_pause_is_never_cut_short_by_the_schedule(draw: float) -> None:
    """Jitter makes it longer, and the interval still holds."""
    state = advance(HEALTHY, HealthEvent.RATE_LIMITED, 100.0, 60.0)
    assert 160.0 <= 100.0 + next_interval(5.0, state, 100.0, draw) <= 166.0
    assert next_interval(5.0, state, 159.0, draw) >= 5.0


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_jitter_is_ten_per_cent_each_way(draw: float) -> None:
    """As much and no more."""
    assert 4.5 <= next_interval(5.0, HEALTHY, 0.0, draw) <= 5.5
