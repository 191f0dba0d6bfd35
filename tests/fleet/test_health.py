"""What probes say, as a table."""

import pytest

from olla.fleet.health import (
    SUSPICION_LIMIT,
    TRANSITIONS,
    Event,
    Health,
    HealthState,
    advance,
    next_interval,
)


def after(*events: Event, start: Health = Health.UNKNOWN) -> HealthState:
    """The state after events, a second apart."""
    state = HealthState(health=start)
    for at, event in enumerate(events):
        state = advance(state, event, float(at))
    return state


@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("event", Event)
def test_every_event_leads_somewhere_from_every_state(health: Health, event: Event) -> None:
    """The table has no hole, and nothing leads back to not knowing."""
    assert TRANSITIONS[health][event] is not Health.UNKNOWN


@pytest.mark.parametrize("health", Health)
def test_a_good_answer_makes_healthy_from_anywhere(health: Health) -> None:
    """At once, and its history is forgotten."""
    state = advance(HealthState(health, failures=9, timeouts=9), Event.OK, 5.0)
    assert (state.health, state.failures, state.timeouts) == (Health.HEALTHY, 0, 0)


def test_no_connection_makes_offline_from_anywhere() -> None:
    """No probe has to confirm it."""
    assert {TRANSITIONS[each][Event.UNREACHABLE] for each in Health} == {Health.OFFLINE}


def test_a_late_answer_is_a_suspicion_before_it_is_a_verdict() -> None:
    """So many in a row, and it is unhealthy; one in time clears it."""
    lost = [Event.TIMEOUT] * SUSPICION_LIMIT
    assert after(Event.OK, *lost[:-1]).health is Health.BUSY
    assert after(Event.OK, *lost).health is Health.UNHEALTHY
    assert after(Event.OK, *lost[:-1], Event.OK, Event.TIMEOUT).health is Health.BUSY


def test_slow_lists_make_busy_and_busy_is_routable() -> None:
    """A node that loads a model may block them."""
    assert after(Event.OK, Event.SLOW).health is Health.BUSY
    assert Health.BUSY.routable


def test_what_was_gone_must_answer_fully_to_be_used() -> None:
    """Slow after offline is no proof."""
    assert after(Event.OK, Event.UNREACHABLE, Event.SLOW).health is Health.UNHEALTHY


@pytest.mark.parametrize(
    ("event", "health"),
    [
        (Event.LOADING, Health.WARMING),
        (Event.BROKEN, Health.UNHEALTHY),
        (Event.UNAUTHORIZED, Health.CONFIG_ERROR),
        (Event.RATE_LIMITED, Health.RATE_LIMITED),
    ],
)
def test_other_troubles_have_their_states_and_take_no_requests(
    event: Event, health: Health
) -> None:
    """Each with its name for the operator."""
    assert after(Event.OK, event).health is health
    assert not health.routable


def test_a_state_knows_since_when_it_is() -> None:
    """Until it changes."""
    state = after(Event.OK, Event.BROKEN, Event.BROKEN, Event.BROKEN)
    assert state.since == 1.0
    assert state.failures == 3


def test_probes_come_at_their_interval_and_back_off() -> None:
    """Doubled with each failure, up to a minute; five seconds for who does not answer at all."""

    def waits(event: Event) -> list[float]:
        return [next_interval(5.0, after(*[event] * times), 0.0, 0.5) for times in (1, 2, 3, 4, 9)]

    assert waits(Event.OK) == [5.0] * 5
    assert waits(Event.BROKEN) == [5.0, 10.0, 20.0, 40.0, 60.0]
    assert waits(Event.UNREACHABLE) == [5.0] * 5


def test_jitter_is_a_tenth_each_way() -> None:
    """So that many routers do not ask in step."""
    state = after(Event.OK)
    assert next_interval(10.0, state, 0.0, 0.0) == pytest.approx(9.0)
    assert next_interval(10.0, state, 0.0, 0.999999) == pytest.approx(11.0, abs=0.01)


def test_a_rate_limited_endpoint_is_left_alone_as_long_as_it_asked() -> None:
    """Or half a minute where it did not say."""
    told = advance(HealthState(), Event.RATE_LIMITED, 100.0, 42.0)
    assert told.retry_at == 142.0
    assert next_interval(5.0, told, 100.0, 0.0) == 42.0
    assert advance(HealthState(), Event.RATE_LIMITED, 0.0).retry_at == 30.0
